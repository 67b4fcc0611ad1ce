package link

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"carnet"
)

// messages has one of each control message, and the bytes it must have.
var messages = []struct {
	kind  kind
	value any
	bytes string
}{
	{kindGreeting, &greeting{Version: 1, Incarnation: 4}, "00000004018201" + "04"},
	{kindHello, &hello{Version: 1, Party: "hub", Audience: "arena", Nonce: Nonce{1, 15: 2}, Seen: 4, Own: 3, Known: 2, Number: 17},
		"00000022" + "02" + "88" + "01" + "63687562" + "656172656e61" + "5001000000000000000000000000000002" + "04030211"},
	{kindWelcome, &welcome{Incarnation: 5, Number: 17, Hash: carnet.Fingerprint{7}, Covers: Covers{8}, MaxFrame: 1000, Window: 16, Announcement: []byte{9}},
		"0000003d" + "03" + "87" + "0511" + "582007" + zeros(31) + "5008" + zeros(15) + "1903e8" + "10" + "4109"},
	{kindAck, &ack{Number: 21}, "0000000305" + "8115"},
	{kindRefuse, &refuse{Number: 18, Code: "forked", Reason: "no", Fix: "do"}, "0000001006" + "8412" + "66666f726b6564" + "626e6f" + "62646f"},
	{kindCall, &call{ID: 1, Kind: "bag", Body: []byte{1}}, "0000000907" + "8301" + "63626167" + "4101"},
	{kindReply, &reply{ID: 1, Body: []byte{2}}, "0000000808" + "8501" + "606060" + "4102"},
	{kindNotify, &notify{Kind: "demand", Body: []byte{3}}, "0000000b09" + "82" + "6664656d616e64" + "4103"},
	{kindPing, &ping{N: 1}, "000000030a8101"},
	{kindTrace, &trace{ID: 2, Number: 9}, "000000040c820209"},
	{kindTraced, &traced{ID: 2, Kept: true, Number: 9, Hash: carnet.Fingerprint{7}, Covers: Covers{8}},
		"000000380d" + "8502f509" + "582007" + zeros(31) + "5008" + zeros(15)},
}

func zeros(n int) string { return hex.EncodeToString(make([]byte, n)) }

func TestMessagesHaveTheseBytes(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		got, err := c.message(nil, m.kind, m.value)
		if err != nil || hex.EncodeToString(got) != m.bytes {
			t.Errorf("message of type %d: %x, %v, want %s", m.kind, got, err, m.bytes)
			continue
		}
		back := reflect.New(reflect.TypeOf(m.value).Elem()).Interface()
		if err := c.decode(m.kind, got[headerSize:], back); err != nil || !reflect.DeepEqual(back, m.value) {
			t.Errorf("message of type %d comes back as %+v, %v", m.kind, back, err)
		}
	}
}

// FuzzMessage: whatever comes, no panic, no memory beyond the limits, and what is
// taken has one encoding only.
func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		b, err := hex.DecodeString(m.bytes)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 5, byte(kindFrame), 1, 2, 3, 4})
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		k, n, err := readHeader(r, 1<<10)
		if err != nil {
			return
		}
		if n > k.limit(1<<10) {
			t.Fatalf("%d bytes taken for type %d", n, k)
		}
		body := data[headerSize:]
		if len(body) < n {
			return
		}
		body = body[:n]
		for _, m := range messages {
			if m.kind != k {
				continue
			}
			v := reflect.New(reflect.TypeOf(m.value).Elem()).Interface()
			if c.decode(k, body, v) != nil {
				continue
			}
			again, err := c.message(nil, k, v)
			if err != nil || !bytes.Equal(again[headerSize:], body) {
				t.Fatalf("type %d: %x is taken and written as %x, %v", k, body, again, err)
			}
		}
	})
}
