package td

import _ "embed" // the two descriptions below

//go:embed watch.td.json
var watch string

//go:embed room.td.json
var room string

// Watch returns the description of a sports watch: heart_rate, steps, stress,
// speed, altitude, cadence, position/lat, position/lon and temperature.
func Watch() []byte { return []byte(watch) }

// Room returns the description of a room sensor: temperature, humidity, light,
// co2 and occupancy.
func Room() []byte { return []byte(room) }
