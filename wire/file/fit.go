package file

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/muktihari/fit/decoder"
	"github.com/muktihari/fit/kit/hash/crc16"
	"github.com/muktihari/fit/profile/typedef"
	"github.com/muktihari/fit/profile/untyped/fieldnum"
	"github.com/muktihari/fit/profile/untyped/mesgnum"
	"github.com/muktihari/fit/proto"

	"carnet"
)

// The times of FIT are seconds since 1989-12-31 00:00 UTC; below firstDate they
// are seconds since the device was switched on (FIT profile, date_time).
const (
	fitEpoch  = 631065600
	firstDate = 0x10000000
)

// maxFieldDescriptions bounds the developer fields that a file may declare: the
// decoder searches them all for each such field.
const maxFieldDescriptions = 128

// ReadFIT reads a FIT file, or several chained in one. It takes
//
//	record       heart_rate [beat/min], speed [m/s], altitude [m], cadence [1/min],
//	             position/lat and position/lon [lat, lon], temperature [Cel]
//	monitoring   heart_rate; steps [count]: the day's, walking and running together
//	stress_level stress; negative values mean that none could be told
//
// and skips all other messages. Where a record has an enhanced_ field, that is
// taken. Numbers are the decimals that the format's scale gives: speed in
// thousandths, altitude in fifths; degrees are rounded to 8 places, which keeps
// different positions different.
func ReadFIT(r io.Reader, name string) (*Recording, error) {
	data, err := io.ReadAll(&limited{r: r, name: name})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f := &fitReader{recorder: newRecorder(name, Message)}
	for ok := true; ok; ok = len(data) > 0 {
		part, err := f.frame(data)
		if err == nil {
			err = f.decode(part)
		}
		if err != nil {
			return nil, err
		}
		f.start += len(part)
		data = data[len(part):]
	}
	return f.finish(), nil
}

// fitReader reads the FIT files of a chain one after the other.
type fitReader struct {
	*recorder
	start    int // where the current FIT file starts in the chain
	messages int
	declared int // developer fields

	rest []byte // of the current file, what the decoder has not read
	stop error  // why nothing more is given to it

	base    uint32    // the last whole time, which 16-bit times continue
	steps   [2]uint32 // the day's steps walking and running
	stepsAt uint32    // when they were last counted; 0 when they have been taken
}

// frame returns the FIT file that data starts with: header, records and CRC. The
// decoder isn't trusted with this: it takes the CRC of a file whose header has
// none of its own over the records alone, where the format (FIT protocol, "CRC")
// and devices take it over the header too.
func (f *fitReader) frame(data []byte) ([]byte, error) {
	if !isFIT(data) || len(data) < int(data[0]) {
		return nil, f.damaged("there is no FIT header")
	}
	size := int64(data[0]) + int64(binary.LittleEndian.Uint32(data[4:8]))
	if int64(len(data)) < size+2 {
		return nil, f.damaged("the file ends early: %d bytes are announced, %d are there", size+2, len(data))
	}
	if head := data[:data[0]]; len(head) == 14 && binary.LittleEndian.Uint16(head[12:]) != 0 && sum(head) != 0 {
		return nil, f.damaged("the checksum of the header does not match")
	}
	if want, got := binary.LittleEndian.Uint16(data[size:]), sum(data[:size]); want != got {
		return nil, f.damaged("the checksum does not match: it says %04x, the content has %04x", want, got)
	}
	return data[:size+2], nil
}

// sum is FIT's CRC-16; over something and its CRC it is 0.
func sum(b []byte) uint16 {
	h := crc16.New()
	h.Write(b)
	return h.Sum16()
}

func (f *fitReader) decode(part []byte) (err error) {
	// The decoder is not ours: whatever a hostile file does to it stays here.
	defer func() {
		if p := recover(); p != nil {
			err = f.damaged("the decoder failed: %v", p)
		}
	}()
	f.rest, f.base, f.steps, f.stepsAt = part, 0, [2]uint32{}, 0
	// Components are expanded by us, because the decoder's way through float64
	// truncates (a speed of 1.001 m/s becomes 1.000).
	dec := decoder.New(f, decoder.WithMesgListener(f), decoder.WithBroadcastOnly(), decoder.WithNoComponentExpansion(), decoder.WithIgnoreChecksum())
	_, err = dec.Decode()
	switch {
	case f.stop != nil:
		return f.stop
	case err != nil:
		return f.damaged("%v", err)
	}
	return f.takeSteps()
}

// Read gives the decoder the current file until there is a reason to stop.
func (f *fitReader) Read(p []byte) (int, error) {
	if f.stop != nil {
		return 0, f.stop
	}
	if len(f.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// damaged makes the refusal of a file.
func (f *fitReader) damaged(format string, args ...any) error {
	where := fmt.Sprintf("after message %d", f.messages)
	if f.start > 0 {
		where += fmt.Sprintf(", in the part that starts at byte %d", f.start)
	}
	return carnet.Errorf(carnet.Malformed, "%s is not a sound FIT file: %s: %s", f.rec.Name, where, fmt.Sprintf(format, args...)).
		WithFix("copy it from the device again; nothing of it was taken")
}

// OnMesg takes one message; the decoder calls it in the file's order.
func (f *fitReader) OnMesg(m proto.Message) {
	if f.stop != nil {
		return
	}
	f.messages++
	f.stop = f.message(&m)
}

func (f *fitReader) message(m *proto.Message) error {
	switch m.Num {
	case mesgnum.Record:
		return f.record(m)
	case mesgnum.Monitoring:
		return f.monitoring(m)
	case mesgnum.MonitoringInfo:
		if v := m.FieldValueByNum(fieldnum.MonitoringInfoTimestamp).Uint32(); v != math.MaxUint32 {
			f.base = v
		}
	case mesgnum.StressLevel:
		return f.stress(m)
	case mesgnum.FieldDescription:
		if f.declared++; f.declared > maxFieldDescriptions {
			return carnet.Errorf(carnet.TooLarge, "%s declares more than %d developer fields", f.rec.Name, maxFieldDescriptions)
		}
	}
	if m.Num != mesgnum.FileId { // which says what the file is: each has one
		f.skip(f.messages, messageName(m.Num)+NoMeasurement)
	}
	return nil
}

// NoMeasurement ends the reason why messages of a kind are left out that hold none.
const NoMeasurement = " messages hold no measurement that is taken"

func messageName(n typedef.MesgNum) string {
	if s := n.String(); !strings.HasPrefix(s, "MesgNumInvalid") {
		return s
	}
	return fmt.Sprintf("unpublished (%d)", uint16(n))
}

// at returns a FIT time as nanoseconds since the Unix epoch.
func (f *fitReader) at(seconds uint32) int64 {
	if seconds < firstDate {
		f.skip(f.messages, "the date: the device knew only the seconds since it was switched on")
	}
	return (int64(seconds) + fitEpoch) * int64(time.Second)
}

func (f *fitReader) take(name, unit string, at int64, v float64) error {
	return f.add(carnet.Measurement{Name: name, Unit: unit, Time: at, Value: carnet.Float(v)})
}

// record takes an activity's record.
func (f *fitReader) record(m *proto.Message) error {
	stamp := m.FieldValueByNum(fieldnum.RecordTimestamp).Uint32()
	if stamp == math.MaxUint32 {
		f.skip(f.messages, "record messages without a time")
		return nil
	}
	at := f.at(stamp)
	for _, x := range [...]struct {
		name, unit string
		value      reading
	}{
		{"heart_rate", "beat/min", byteOf(m, fieldnum.RecordHeartRate)},
		{"speed", "m/s", recordSpeed(m)},
		{"altitude", "m", recordAltitude(m)},
		{"cadence", "1/min", byteOf(m, fieldnum.RecordCadence)},
	} {
		if x.value.ok {
			if err := f.take(x.name, x.unit, at, x.value.v); err != nil {
				return err
			}
		}
	}
	if err := f.position(m, at); err != nil {
		return err
	}
	if t := m.FieldValueByNum(fieldnum.RecordTemperature).Int8(); t != math.MaxInt8 {
		return f.take("temperature", "Cel", at, float64(t))
	}
	return nil
}

func (f *fitReader) position(m *proto.Message, at int64) error {
	lat := m.FieldValueByNum(fieldnum.RecordPositionLat).Int32()
	lon := m.FieldValueByNum(fieldnum.RecordPositionLong).Int32()
	switch {
	case lat == math.MaxInt32 && lon == math.MaxInt32:
		return nil
	case lat == math.MaxInt32 || lon == math.MaxInt32:
		f.skip(f.messages, "positions with only one of latitude and longitude")
		return nil
	}
	if err := f.take("position/lat", "lat", at, degrees(lat)); err != nil {
		return err
	}
	return f.take("position/lon", "lon", at, degrees(lon))
}

// reading is a number that may be absent.
type reading struct {
	v  float64
	ok bool
}

// byteOf reads a field of one byte without scale; 255 is absent.
func byteOf(m *proto.Message, num byte) reading {
	b := m.FieldValueByNum(num).Uint8()
	return reading{float64(b), b != math.MaxUint8}
}

// recordSpeed takes enhanced_speed, speed (both mm/s), or the low 12 bits of
// compressed_speed_distance (cm/s), the first that is there.
func recordSpeed(m *proto.Message) reading {
	if v := m.FieldValueByNum(fieldnum.RecordEnhancedSpeed).Uint32(); v != math.MaxUint32 {
		return reading{float64(v) / 1000, true}
	}
	if v := m.FieldValueByNum(fieldnum.RecordSpeed).Uint16(); v != math.MaxUint16 {
		return reading{float64(v) / 1000, true}
	}
	if b := m.FieldValueByNum(fieldnum.RecordCompressedSpeedDistance).SliceUint8(); len(b) == 3 {
		v := uint16(b[0]) | uint16(b[1]&0x0f)<<8
		return reading{float64(v) / 100, v != 0xfff}
	}
	return reading{}
}

// recordAltitude takes enhanced_altitude or altitude, both fifths of a metre
// above -500 m; the offset is taken off before the division, which is exact.
func recordAltitude(m *proto.Message) reading {
	if v := m.FieldValueByNum(fieldnum.RecordEnhancedAltitude).Uint32(); v != math.MaxUint32 {
		return reading{(float64(v) - 2500) / 5, true}
	}
	v := m.FieldValueByNum(fieldnum.RecordAltitude).Uint16()
	return reading{(float64(v) - 2500) / 5, v != math.MaxUint16}
}

// degrees turns semicircles (180°/2³¹, some 9 mm) into degrees, rounded to 8
// decimal places: fine enough that semicircles turns them back.
func degrees(s int32) float64 { return math.Round(float64(s)*180/(1<<31)*1e8) / 1e8 }

func semicircles(deg float64) int32 { return int32(math.Round(deg / 180 * (1 << 31))) }

// monitoring takes the heart rate and steps that a device keeps all day long.
func (f *fitReader) monitoring(m *proto.Message) error {
	stamp, ok := f.monitoringTime(m)
	if !ok {
		f.skip(f.messages, "monitoring messages without a time")
		return nil
	}
	took := false
	if hr := m.FieldValueByNum(fieldnum.MonitoringHeartRate).Uint8(); hr != math.MaxUint8 && hr != 0 {
		took = true
		if err := f.take("heart_rate", "beat/min", f.at(stamp), float64(hr)); err != nil {
			return err
		}
	}
	cycles := m.FieldValueByNum(fieldnum.MonitoringCycles).Uint32()
	if foot := onFoot(m); cycles != math.MaxUint32 && foot >= 0 {
		took = true
		if stamp != f.stepsAt {
			if err := f.takeSteps(); err != nil {
				return err
			}
		}
		f.steps[foot], f.stepsAt = cycles, stamp
	}
	if !took {
		f.skip(f.messages, "monitoring messages with neither heart rate nor steps (distance, intensity, activity minutes, climb)")
	}
	return nil
}

// takeSteps takes the steps of all messages of one time together: a device that
// starts a file counts up walking and running in two messages, and the first
// alone would be a step back.
func (f *fitReader) takeSteps() error {
	if f.stepsAt == 0 {
		return nil
	}
	at := f.at(f.stepsAt)
	f.stepsAt = 0
	return f.take("steps", "count", at, float64(f.steps[0])+float64(f.steps[1]))
}

// monitoringTime reads the time, which may be only the low 16 bits of the one
// that follows the last whole time (FIT profile, monitoring, timestamp_16).
func (f *fitReader) monitoringTime(m *proto.Message) (uint32, bool) {
	if v := m.FieldValueByNum(fieldnum.MonitoringTimestamp).Uint32(); v != math.MaxUint32 {
		f.base = v
		return v, true
	}
	low := m.FieldValueByNum(fieldnum.MonitoringTimestamp16).Uint16()
	if low == math.MaxUint16 || f.base == 0 {
		return 0, false
	}
	f.base += uint32(low - uint16(f.base)) // wraps as 16 bits do
	return f.base, true
}

// onFoot returns 0 for walking and 1 for running, the types whose cycles count
// steps, and -1 for the others.
func onFoot(m *proto.Message) int {
	kind := typedef.ActivityType(m.FieldValueByNum(fieldnum.MonitoringActivityType).Uint8())
	if both := m.FieldValueByNum(fieldnum.MonitoringCurrentActivityTypeIntensity).Uint8(); kind == typedef.ActivityTypeInvalid && both != math.MaxUint8 {
		kind = typedef.ActivityType(both & 0x1f) // the high 3 bits are the intensity
	}
	switch kind {
	case typedef.ActivityTypeWalking:
		return 0
	case typedef.ActivityTypeRunning:
		return 1
	}
	return -1
}

func (f *fitReader) stress(m *proto.Message) error {
	level := m.FieldValueByNum(fieldnum.StressLevelStressLevelValue).Int16()
	stamp := m.FieldValueByNum(fieldnum.StressLevelStressLevelTime).Uint32()
	switch {
	case stamp == math.MaxUint32:
		f.skip(f.messages, "stress levels without a time")
	case level < 0 || level == math.MaxInt16:
		f.skip(f.messages, "stress levels that the device could not tell (moving, too little data)")
	default:
		return f.take("stress", "", f.at(stamp), float64(level))
	}
	return nil
}
