package file

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muktihari/fit/encoder"
	"github.com/muktihari/fit/profile/typedef"
	"github.com/muktihari/fit/profile/untyped/fieldnum"
	"github.com/muktihari/fit/profile/untyped/mesgnum"
	"github.com/muktihari/fit/proto"

	"carnet"
	"carnet/td"
)

var runEnd = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// encode writes messages as a FIT file by way of the library alone.
func encode(t testing.TB, messages ...proto.Message) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := encoder.New(&buf).Encode(&proto.FIT{Messages: messages}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func message(num typedef.MesgNum, fields ...proto.Field) proto.Message {
	return proto.Message{Num: num, Fields: fields}
}

func fileID() proto.Message {
	return message(mesgnum.FileId, field(mesgnum.FileId, fieldnum.FileIdType, typedef.FileActivity))
}

func writeFIT(t testing.TB, rec *Recording) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteFIT(&buf, rec); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func readFIT(t *testing.T, data []byte) *Recording {
	t.Helper()
	rec, err := ReadFIT(bytes.NewReader(data), "test.fit")
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func num(name, unit string, fit uint32, v float64) carnet.Measurement {
	return carnet.Measurement{Name: name, Unit: unit, Time: (int64(fit) + fitEpoch) * int64(time.Second), Value: carnet.Float(v)}
}

func TestGeneratedRunSurvivesFIT(t *testing.T) {
	for seed := range uint64(5) {
		want := Generate(seed, 20*time.Minute, runEnd)
		got := readFIT(t, writeFIT(t, want))
		got.Name, got.Skipped = want.Name, nil // the file_id message
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("read %d measurements from %d to %d, wrote %d from %d to %d", len(got.Measurements), got.Start, got.End, len(want.Measurements), want.Start, want.End)
		}
	}
}

func TestGenerate(t *testing.T) {
	watch := description(t, td.Watch())
	a, b, other := Generate(1, time.Hour, runEnd), Generate(1, time.Hour, runEnd), Generate(2, time.Hour, runEnd)
	if !reflect.DeepEqual(a, b) || reflect.DeepEqual(a.Measurements, other.Measurements) {
		t.Error("a run must follow from its seed")
	}
	if n := count(a); len(n) != len(watch.Properties) || n["heart_rate"] != 3600 || n["steps"] != 3600 {
		t.Errorf("it has %v, want 3600 of each property of the watch", n)
	}
	if a.End != runEnd.UnixNano() || a.Start != runEnd.Add(-3599*time.Second).UnixNano() {
		t.Errorf("it goes from %d to %d", a.Start, a.End)
	}
	accepted(t, watch, a)
	// Believable: somebody runs some kilometres, and the heart follows.
	mean := make(map[string]float64)
	for _, m := range a.Measurements {
		mean[m.Name] += m.Value.Num / 3600
	}
	if mean["speed"] < 2 || mean["speed"] > 4 || mean["heart_rate"] < 110 || mean["heart_rate"] > 175 || mean["cadence"] < 60 || mean["cadence"] > 100 {
		t.Errorf("the means are %v", mean)
	}
	if n := backwards([]*Recording{a}); n != 0 {
		t.Errorf("the steps go back %d times", n)
	}
	if got := Generate(1, -time.Hour, runEnd); len(got.Measurements) != 0 {
		t.Errorf("a run of no time has %d measurements", len(got.Measurements))
	}
}

const day = uint32(938246520)

func TestFITMessages(t *testing.T) {
	rec := func(fields ...proto.Field) proto.Message {
		return message(mesgnum.Record, append([]proto.Field{field(mesgnum.Record, fieldnum.RecordTimestamp, day)}, fields...)...)
	}
	mon := func(fields ...proto.Field) proto.Message { return message(mesgnum.Monitoring, fields...) }
	of := func(n byte, v any) proto.Field { return field(mesgnum.Monitoring, n, v) }
	walking, running := of(fieldnum.MonitoringActivityType, typedef.ActivityTypeWalking), of(fieldnum.MonitoringActivityType, typedef.ActivityTypeRunning)
	stress := func(v int16) proto.Message {
		return message(mesgnum.StressLevel, field(mesgnum.StressLevel, fieldnum.StressLevelStressLevelTime, day), field(mesgnum.StressLevel, fieldnum.StressLevelStressLevelValue, v))
	}
	for _, test := range []struct {
		name string
		in   []proto.Message
		want []carnet.Measurement
	}{
		{"a speed that float64 scaling would truncate", []proto.Message{rec(field(mesgnum.Record, fieldnum.RecordSpeed, uint16(1001)))},
			[]carnet.Measurement{num("speed", "m/s", day, 1.001)}},
		{"an altitude that float64 scaling would blur", []proto.Message{rec(field(mesgnum.Record, fieldnum.RecordAltitude, uint16(2678)))},
			[]carnet.Measurement{num("altitude", "m", day, 35.6)}},
		{"enhanced fields first", []proto.Message{rec(
			field(mesgnum.Record, fieldnum.RecordSpeed, uint16(1000)), field(mesgnum.Record, fieldnum.RecordEnhancedSpeed, uint32(70000)),
			field(mesgnum.Record, fieldnum.RecordAltitude, uint16(0)), field(mesgnum.Record, fieldnum.RecordEnhancedAltitude, uint32(2500)))},
			[]carnet.Measurement{num("speed", "m/s", day, 70), num("altitude", "m", day, 0)}},
		{"compressed speed", []proto.Message{rec(field(mesgnum.Record, fieldnum.RecordCompressedSpeedDistance, []byte{0x73, 0xf0, 0xff}))},
			[]carnet.Measurement{num("speed", "m/s", day, 1.15)}},
		{"half a position", []proto.Message{rec(field(mesgnum.Record, fieldnum.RecordPositionLat, int32(5)))}, nil},
		{"a position", []proto.Message{rec(field(mesgnum.Record, fieldnum.RecordPositionLat, int32(math.MinInt32/2)), field(mesgnum.Record, fieldnum.RecordPositionLong, int32(1<<29)))},
			[]carnet.Measurement{num("position/lat", "lat", day, -90), num("position/lon", "lon", day, 45)}},
		{"stress that could not be told", []proto.Message{stress(-2), stress(-1), stress(0), stress(37)},
			[]carnet.Measurement{num("stress", "", day, 0), num("stress", "", day, 37)}},
		{"16-bit times", []proto.Message{
			mon(of(fieldnum.MonitoringTimestamp16, uint16(7)), of(fieldnum.MonitoringHeartRate, uint8(61))), // nothing to continue
			message(mesgnum.MonitoringInfo, field(mesgnum.MonitoringInfo, fieldnum.MonitoringInfoTimestamp, day)),
			mon(of(fieldnum.MonitoringTimestamp16, uint16((day)%(1<<16))), of(fieldnum.MonitoringHeartRate, uint8(70))),
			mon(of(fieldnum.MonitoringTimestamp16, uint16((day+60)%(1<<16))), of(fieldnum.MonitoringHeartRate, uint8(71))),
			mon(of(fieldnum.MonitoringTimestamp16, uint16((day+60+40000)%(1<<16))), of(fieldnum.MonitoringHeartRate, uint8(72))),
			mon(of(fieldnum.MonitoringTimestamp16, uint16((day+60+80000)%(1<<16))), of(fieldnum.MonitoringHeartRate, uint8(73))), // once around
			mon(of(fieldnum.MonitoringTimestamp, day+100000), of(fieldnum.MonitoringHeartRate, uint8(74)))},
			[]carnet.Measurement{num("heart_rate", "beat/min", day, 70), num("heart_rate", "beat/min", day+60, 71), num("heart_rate", "beat/min", day+40060, 72),
				num("heart_rate", "beat/min", day+80060, 73), num("heart_rate", "beat/min", day+100000, 74)}},
		{"steps walked and run", []proto.Message{
			mon(of(fieldnum.MonitoringTimestamp, day), walking, of(fieldnum.MonitoringCycles, uint32(800))),
			mon(of(fieldnum.MonitoringTimestamp, day), running, of(fieldnum.MonitoringCycles, uint32(200))),
			mon(of(fieldnum.MonitoringTimestamp, day), of(fieldnum.MonitoringActivityType, typedef.ActivityTypeCycling), of(fieldnum.MonitoringCycles, uint32(5))),
			mon(of(fieldnum.MonitoringTimestamp, day+60), of(fieldnum.MonitoringCurrentActivityTypeIntensity, uint8(0x66)), of(fieldnum.MonitoringCycles, uint32(850)))},
			[]carnet.Measurement{num("steps", "count", day, 1000), num("steps", "count", day+60, 1050)}},
	} {
		got := readFIT(t, encode(t, append([]proto.Message{fileID()}, test.in...)...)).Measurements
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %v\nwant %v", test.name, got, test.want)
		}
	}
}

func TestFITChain(t *testing.T) {
	a, b := Generate(1, time.Minute, runEnd), Generate(2, time.Minute, runEnd.Add(-time.Hour))
	got := readFIT(t, append(writeFIT(t, a), writeFIT(t, b)...))
	if want := append(slices.Clone(b.Measurements), a.Measurements...); !slices.Equal(got.Measurements, want) {
		t.Errorf("read %d measurements from %d to %d, want both files' %d in time order", len(got.Measurements), got.Start, got.End, len(want))
	}
}

// TestFITChainCountsStepsAnew wants each file of a chain to count by itself, as
// each starts with the day's totals.
func TestFITChainCountsStepsAnew(t *testing.T) {
	part := func(at uint32, kind typedef.ActivityType, cycles uint32) []byte {
		return encode(t, fileID(), message(mesgnum.Monitoring, field(mesgnum.Monitoring, fieldnum.MonitoringTimestamp, at),
			field(mesgnum.Monitoring, fieldnum.MonitoringActivityType, kind), field(mesgnum.Monitoring, fieldnum.MonitoringCycles, cycles)))
	}
	got := readFIT(t, append(part(day, typedef.ActivityTypeWalking, 800), part(day+60, typedef.ActivityTypeRunning, 200)...)).Measurements
	if want := []carnet.Measurement{num("steps", "count", day, 800), num("steps", "count", day+60, 200)}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestWriteFITKeepsValuesOfOneSecond(t *testing.T) {
	want := []carnet.Measurement{num("speed", "m/s", day, 1), num("cadence", "1/min", day, 80), num("speed", "m/s", day, 2), num("steps", "count", day+1, 5)}
	if got := readFIT(t, writeFIT(t, &Recording{Measurements: want})).Measurements; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestFITHeaders reads the header's three forms: with a CRC, with an empty one,
// and the short one of old devices. The file's CRC covers the header in each.
func TestFITHeaders(t *testing.T) {
	rec := Generate(1, time.Minute, runEnd)
	data := writeFIT(t, rec)
	content := data[14 : len(data)-2]
	empty := append(slices.Concat(data[:12], []byte{0, 0}), content...)
	old := append(slices.Concat([]byte{12}, data[1:12]), content...)
	for _, file := range [][]byte{data[:len(data)-2], empty, old} {
		file = binary.LittleEndian.AppendUint16(slices.Clone(file), sum(file))
		if got := readFIT(t, file).Measurements; !slices.Equal(got, rec.Measurements) {
			t.Errorf("header of %d bytes: %d measurements, want %d", file[0], len(got), len(rec.Measurements))
		}
	}
}

// TestFITDamage cuts a file at each byte and flips a bit in each: nothing of it
// may be taken, and the reason must say so.
func TestFITDamage(t *testing.T) {
	whole := writeFIT(t, Generate(3, 3*time.Second, runEnd))
	check := func(what string, at int, data []byte) {
		rec, err := ReadFIT(bytes.NewReader(data), "run.fit")
		if rec != nil || carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "run.fit") {
			t.Fatalf("%s %d of %d: %v", what, at, len(whole), err)
		}
	}
	for i := range whole {
		check("cut at", i, whole[:i])
		broken := slices.Clone(whole)
		broken[i] ^= 0x10
		check("flipped in", i, broken)
	}
	check("followed by", len(whole), append(slices.Clone(whole), 1, 2, 3))
}

func TestFITLimits(t *testing.T) {
	many := []proto.Message{fileID()}
	for range maxFieldDescriptions + 1 {
		many = append(many, message(mesgnum.FieldDescription, field(mesgnum.FieldDescription, fieldnum.FieldDescriptionFieldDefinitionNumber, uint8(1))))
	}
	if _, err := ReadFIT(bytes.NewReader(encode(t, many...)), "x"); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too many developer fields: %v", err)
	}
	if _, err := ReadFIT(endless{}, "x"); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("an endless file: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestWriteFITRefuses(t *testing.T) {
	for _, test := range []struct {
		m    carnet.Measurement
		code carnet.Code
	}{
		{num("humidity", "%RH", day, 40), carnet.UnknownProperty},
		{num("speed", "km/h", day, 10), carnet.WrongUnit},
		{num("speed", "m/s", day, 1.00005), carnet.OutOfRange},
		{num("heart_rate", "beat/min", day, 60.5), carnet.OutOfRange},
		{num("heart_rate", "beat/min", day, 255), carnet.OutOfRange}, // FIT's "absent"
		{num("heart_rate", "beat/min", day, math.NaN()), carnet.OutOfRange},
		{num("position/lat", "lat", day, 91), carnet.OutOfRange},
		{carnet.Measurement{Name: "speed", Unit: "m/s", Time: 1500e6 + 1.6e18, Value: carnet.Float(1)}, carnet.OutOfRange},
		{carnet.Measurement{Name: "speed", Unit: "m/s", Time: 0, Value: carnet.Float(1)}, carnet.OutOfRange},
		{carnet.Measurement{Name: "speed", Unit: "m/s", Time: 1.6e18, Value: carnet.String("fast")}, carnet.WrongType},
	} {
		err := WriteFIT(&bytes.Buffer{}, &Recording{Measurements: []carnet.Measurement{test.m}})
		if carnet.CodeOf(err) != test.code {
			t.Errorf("%v: %v, want %s", test.m, err, test.code)
		}
	}
}

func TestDegreesKeepPositionsApart(t *testing.T) {
	for _, s := range []int32{0, 1, -1, 2, 661_862_000, math.MaxInt32 - 1, math.MinInt32, 1<<30 - 1, -(1 << 30)} {
		if got := semicircles(degrees(s)); got != s {
			t.Errorf("%d came back as %d by way of %v°", s, got, degrees(s))
		}
	}
}

func FuzzReadFIT(f *testing.F) {
	run := writeFIT(f, Generate(1, 2*time.Second, runEnd))
	f.Add(run)
	f.Add(append(slices.Clone(run), run...))
	f.Add(encode(f, fileID()))
	f.Fuzz(func(t *testing.T, data []byte) {
		// With its sizes and CRC made right, more of a file reaches the decoder.
		for _, data := range [][]byte{data, sealed(data)} {
			rec, err := ReadFIT(bytes.NewReader(data), "fuzz")
			if err != nil && carnet.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			if err == nil && !slices.IsSortedFunc(rec.Measurements, func(a, b carnet.Measurement) int { return int(min(1, max(-1, a.Time-b.Time))) }) {
				t.Fatal("not in time order")
			}
		}
	})
}

// sealed makes data the records of a file with a right header and CRC.
func sealed(data []byte) []byte {
	if len(data) > 14 {
		data = data[14:]
	}
	file := append([]byte{12, 0x20, 0, 0}, binary.LittleEndian.AppendUint32(nil, uint32(len(data)))...)
	file = append(append(file, ".FIT"...), data...)
	return binary.LittleEndian.AppendUint16(file, sum(file))
}

func BenchmarkReadFIT(b *testing.B) {
	rec := Generate(1, time.Hour, runEnd)
	data := writeFIT(b, rec)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadFIT(bytes.NewReader(data), "bench"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(rec.Measurements))/b.Elapsed().Seconds(), "measurements/s")
}
