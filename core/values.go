package core

// Array is an n-dimensional array of numbers as NumPy has them: Data is in C order, DType is NumPy's own string in little endian, such as
// "<f8" or "|u1". A worker without NumPy gets and gives the same three facts as a map.
type Array struct {
	DType string
	Shape []int
	Data  []byte
}
