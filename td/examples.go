package td

import _ "embed" // the descriptions below

//go:embed watch.td.json
var watch string

//go:embed room.td.json
var room string

//go:embed headset.td.json
var headset string

//go:embed band.td.json
var band string

// Watch returns the description of a sports watch: heart_rate, steps, stress,
// speed, altitude, cadence, position/lat, position/lon and temperature.
func Watch() []byte { return []byte(watch) }

// Room returns the description of a room sensor: temperature, humidity, light,
// co2 and occupancy.
func Room() []byte { return []byte(room) }

// Headset returns the description of a headset for games: head/x, head/y, head/z, and
// gaze/w, gaze/x, gaze/y, gaze/z.
func Headset() []byte { return []byte(headset) }

// Band returns the description of a band on somebody's arm: body_temperature and
// temperature.
func Band() []byte { return []byte(band) }
