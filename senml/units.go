package senml

// commonUnits are the units that the column form writes as one byte: the
// position here, from 1. Positions are part of the format: entries are added at
// the end only, up to literalUnit. The first part is the registry of RFC 8428
// §12.1, the rest the units of RFC 8798 that devices use, and some that are
// common without being registered.
var commonUnits = [...]string{
	"m", "kg", "g", "s", "A", "K", "cd", "mol", "Hz", "rad", "sr", "N", "Pa", "J", "W", "C", "V", "F", "Ohm", "S",
	"Wb", "T", "H", "Cel", "lm", "lx", "Bq", "Gy", "Sv", "kat", "m2", "m3", "l", "m/s", "m/s2", "m3/s", "l/s",
	"W/m2", "cd/m2", "bit", "bit/s", "lat", "lon", "pH", "dB", "dBW", "Bspl", "count", "/", "%", "%RH", "%EL",
	"EL", "1/s", "1/min", "beat/min", "beats", "S/m",
	"B", "VA", "var", "deg", "ms", "min", "h", "kW", "Ah", "Wh", "kWh", "mV", "mA", "dBm", "ug/m3", "mm/h",
	"ppm", "ppb", "hPa", "mm", "cm", "km", "km/h", "mg/l",
	"/min", "bpm", "rpm", "steps", "kcal", "rad/s", "uT",
}

// literalUnit is the last code of the table; code literalUnit+n announces a unit
// of n bytes. 0 is no unit.
const literalUnit = 95

// unitCodes finds the position of a common unit.
var unitCodes = func() map[string]uint8 {
	codes := make(map[string]uint8, len(commonUnits))
	for i, u := range commonUnits {
		codes[u] = uint8(i + 1)
	}
	return codes
}()
