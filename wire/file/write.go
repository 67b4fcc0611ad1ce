package file

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/muktihari/fit/encoder"
	"github.com/muktihari/fit/profile/factory"
	"github.com/muktihari/fit/profile/typedef"
	"github.com/muktihari/fit/profile/untyped/fieldnum"
	"github.com/muktihari/fit/profile/untyped/mesgnum"
	"github.com/muktihari/fit/proto"

	"carnet"
)

// WriteFIT writes rec as one FIT file that ReadFIT reads back. It refuses what
// FIT can't hold as it is: other properties or units than those of ReadFIT, times
// that are not whole seconds, and numbers between the steps of a field.
//
// For each second it writes a record message and, where rec has them, stress
// and steps in a stress_level and a monitoring message after it.
func WriteFIT(w io.Writer, rec *Recording) error {
	b := &fitWriter{}
	b.message(mesgnum.FileId,
		field(mesgnum.FileId, fieldnum.FileIdType, typedef.FileActivity),
		field(mesgnum.FileId, fieldnum.FileIdManufacturer, typedef.ManufacturerDevelopment),
		field(mesgnum.FileId, fieldnum.FileIdTimeCreated, uint32(max(0, rec.Start/int64(time.Second)-fitEpoch))))
	for i := range rec.Measurements {
		if err := b.add(&rec.Measurements[i]); err != nil {
			return err
		}
	}
	b.flush()
	// Four local message types, so that definitions are not written again and again.
	enc := encoder.New(w, encoder.WithHeaderOption(encoder.HeaderOptionNormal, 3))
	if err := enc.Encode(&proto.FIT{Messages: b.messages}); err != nil {
		return fmt.Errorf("write FIT: %w", err)
	}
	return nil
}

// fitWriter gathers the fields of one time into messages.
type fitWriter struct {
	messages                   []proto.Message
	at                         uint32
	record, monitoring, stress []proto.Field
}

func field(m typedef.MesgNum, num byte, value any) proto.Field {
	return factory.CreateField(m, num).WithValue(value)
}

func (b *fitWriter) message(num typedef.MesgNum, fields ...proto.Field) {
	b.messages = append(b.messages, proto.Message{Num: num, Fields: fields})
}

// flush writes out what has been gathered.
func (b *fitWriter) flush() {
	if b.record != nil {
		b.message(mesgnum.Record, append([]proto.Field{field(mesgnum.Record, fieldnum.RecordTimestamp, b.at)}, b.record...)...)
	}
	if b.stress != nil {
		b.message(mesgnum.StressLevel, append([]proto.Field{
			field(mesgnum.StressLevel, fieldnum.StressLevelStressLevelTime, b.at),
		}, b.stress...)...)
	}
	if b.monitoring != nil {
		b.message(mesgnum.Monitoring, append([]proto.Field{
			field(mesgnum.Monitoring, fieldnum.MonitoringTimestamp, b.at),
			field(mesgnum.Monitoring, fieldnum.MonitoringActivityType, typedef.ActivityTypeWalking),
		}, b.monitoring...)...)
	}
	b.record, b.monitoring, b.stress = nil, nil, nil
}

func (b *fitWriter) add(m *carnet.Measurement) error {
	seconds := m.Time/int64(time.Second) - fitEpoch
	if m.Time%int64(time.Second) != 0 || seconds < firstDate || seconds >= math.MaxUint32 {
		return carnet.Errorf(carnet.OutOfRange, "FIT can't hold the time %s", time.Unix(0, m.Time).UTC().Format(time.RFC3339Nano)).
			WithFix("FIT has whole seconds from 1998 to 2126")
	}
	num, value, err := fitField(m)
	if err != nil {
		return err
	}
	into, of := &b.record, typedef.MesgNum(mesgnum.Record)
	switch m.Name {
	case "steps":
		into, of = &b.monitoring, mesgnum.Monitoring
	case "stress":
		into, of = &b.stress, mesgnum.StressLevel
	}
	if uint32(seconds) != b.at || has(*into, num) {
		b.flush()
		b.at = uint32(seconds)
	}
	*into = append(*into, field(of, num, value))
	return nil
}

func has(fields []proto.Field, num byte) bool {
	for i := range fields {
		if fields[i].Num == num {
			return true
		}
	}
	return false
}

// fitField returns the field that holds m, and its raw value.
func fitField(m *carnet.Measurement) (num byte, value any, err error) {
	v, unit, exact := m.Value.Num, "", false
	whole := v == math.Trunc(v)
	switch m.Name {
	case "heart_rate":
		num, unit, value, exact = fieldnum.RecordHeartRate, "beat/min", uint8(v), whole && v >= 0 && v < math.MaxUint8
	case "cadence":
		num, unit, value, exact = fieldnum.RecordCadence, "1/min", uint8(v), whole && v >= 0 && v < math.MaxUint8
	case "temperature":
		num, unit, value, exact = fieldnum.RecordTemperature, "Cel", int8(v), whole && v >= math.MinInt8 && v < math.MaxInt8
	case "speed":
		raw := math.Round(v * 1000)
		num, unit, value, exact = fieldnum.RecordEnhancedSpeed, "m/s", uint32(raw), raw >= 0 && raw < math.MaxUint32 && raw/1000 == v
	case "altitude":
		raw := math.Round(v*5) + 2500
		num, unit, value, exact = fieldnum.RecordEnhancedAltitude, "m", uint32(raw), raw >= 0 && raw < math.MaxUint32 && (raw-2500)/5 == v
	case "position/lat":
		num, unit, value, exact = fieldnum.RecordPositionLat, "lat", semicircles(v), v >= -90 && v <= 90 && degrees(semicircles(v)) == v
	case "position/lon":
		num, unit, value, exact = fieldnum.RecordPositionLong, "lon", semicircles(v), v >= -180 && v < 179.9999999 && degrees(semicircles(v)) == v
	case "steps":
		num, unit, value, exact = fieldnum.MonitoringCycles, "count", uint32(v), whole && v >= 0 && v < math.MaxUint32
	case "stress":
		num, unit, value, exact = fieldnum.StressLevelStressLevelValue, "", int16(v), whole && v >= 0 && v < math.MaxInt16
	default:
		return 0, nil, carnet.Errorf(carnet.UnknownProperty, "FIT has no field here for %q", m.Name)
	}
	switch {
	case m.Value.Kind != carnet.Number:
		return 0, nil, carnet.Errorf(carnet.WrongType, "%s is a %s, FIT has a number there", m.Name, m.Value.Kind)
	case m.Unit != unit:
		return 0, nil, carnet.Errorf(carnet.WrongUnit, "%s has the unit %q, FIT has %q there", m.Name, m.Unit, unit)
	case !exact:
		return 0, nil, carnet.Errorf(carnet.OutOfRange, "%s is %v, which is not a step of FIT's field", m.Name, v)
	}
	return num, value, nil
}
