package audit

import (
	"strings"

	"carnet"
)

// leaf is a property under one view.
type leaf struct {
	settings
	kind carnet.Kind
	key  string // of its memory: its name, or that of an object named as a whole
	show bool   // false: every measurement of it is withheld

	// Of a field of an object named as a whole:
	whole bool
	place role
	bit   uint32 // in opened.fields
	all   uint32 // the fields that the object has, but for those withheld beside a grid
}

// role is what a field is on a grid.
type role int

const (
	offGrid role = iota
	latitude
	longitude
)

const maxFields = 32

// compile is policy.md section 3 but for judge and clearance, which are given.
func compile(v view, properties []Property) ([]leaf, error) {
	leaves := make([]leaf, len(properties))
	objects := make(map[string][]int)
	for i, p := range properties {
		if p.Kind < carnet.Number || p.Kind > carnet.Data {
			return nil, malformed("%s has no kind of value", p.Name)
		}
		s, named := v[p.Name]
		leaves[i] = leaf{settings: s, kind: p.Kind, key: p.Name, show: named && p.Admit && s.precision == 0}
		if s.precision+s.round != 0 || s.deadband != 0 {
			if p.Kind != carnet.Number {
				return nil, malformed("%s is no number, and the view makes it less exact", p.Name)
			}
		}
		if name, _, field := strings.Cut(p.Name, "/"); field {
			objects[name] = append(objects[name], i)
		}
	}
	for name, fields := range objects {
		if len(fields) > maxFields {
			return nil, malformed("%s has %d fields, at most %d are possible", name, len(fields), maxFields)
		}
		if s, named := v[name]; named {
			if err := compileWhole(name, s, properties, leaves, fields); err != nil {
				return nil, err
			}
			continue
		}
		for _, i := range fields {
			if _, named := v[properties[i].Name]; !named {
				leaves[i].key = name // an object that the view doesn't name keeps its memory
			}
		}
	}
	return leaves, nil
}

// compileWhole compiles the fields of an object that the view names as a whole:
// they are shown together or not at all.
func compileWhole(name string, s settings, properties []Property, leaves []leaf, fields []int) error {
	if s.deadband != 0 {
		return malformed("%s is an object, and the view gives it a deadband", name)
	}
	grid, all, show := onGrid(name, s, properties), uint32(0), true
	for bit, i := range fields {
		p, l := properties[i], &leaves[i]
		if s.round != 0 && p.Kind != carnet.Number {
			return malformed("%s is no number, and the view rounds it", p.Name)
		}
		l.settings, l.key, l.whole, l.bit = s, name, true, 1<<bit
		switch {
		case s.precision == 0:
		case grid && p.Name == name+"/lat":
			l.place = latitude
		case grid && p.Name == name+"/lon":
			l.place = longitude
		default:
			continue // withheld, and nothing that the others wait for
		}
		l.show = true
		all |= l.bit
		show = show && p.Admit
	}
	for _, i := range fields {
		leaves[i].all = all
		leaves[i].show = leaves[i].show && show
	}
	return nil
}

// onGrid says whether the object has the two numbers that a grid needs.
func onGrid(name string, s settings, properties []Property) bool {
	found := 0
	for _, p := range properties {
		if p.Kind == carnet.Number && (p.Name == name+"/lat" || p.Name == name+"/lon") {
			found++
		}
	}
	return s.precision != 0 && found == 2
}
