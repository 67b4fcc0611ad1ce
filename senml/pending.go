package senml

import "carnet"

func (d *Decoder) decodeCBOR(dst []carnet.Measurement, data []byte, received int64) ([]carnet.Measurement, error) {
	return dst, malformed("CBOR is not read")
}
func (d *Decoder) decodeXML(dst []carnet.Measurement, data []byte, received int64) ([]carnet.Measurement, error) {
	return dst, malformed("XML is not read")
}
func (d *Decoder) decodeColumns(dst []carnet.Measurement, data []byte) ([]carnet.Measurement, error) {
	return dst, malformed("columns are not read")
}
func appendCBOR(dst []byte, ms []carnet.Measurement) []byte         { return dst }
func appendXML(dst []byte, ms []carnet.Measurement) ([]byte, error) { return dst, nil }

// AppendColumns appends ms in the column form.
func AppendColumns(dst []byte, ms []carnet.Measurement) []byte { return dst }

// ColumnsRange reads how many measurements data holds and the first and last time.
func ColumnsRange(data []byte) (count int, first, last int64, err error) { return 0, 0, 0, malformed("columns are not read") }
