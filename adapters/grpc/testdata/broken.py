raise ZeroDivisionError("this worker is broken")
