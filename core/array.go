package core

// Array is an n-dimensional array of numbers in NumPy's form. Data is in C order. DType is NumPy's dtype string, in
// little endian, such as "<f8" or "|u1". A worker without NumPy receives and sends the same three values as a map.
type Array struct {
	DType string
	Shape []int
	Data  []byte
}
