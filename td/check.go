package td

import (
	"regexp"
	"strings"
	"time"
)

// The contexts of Thing Descriptions 1.0 and 1.1 (§5.3.1.1).
const (
	contextV1  = "https://www.w3.org/2019/wot/td/v1"
	contextV11 = "https://www.w3.org/2022/wot/td/v1.1"
)

// checker holds one description to the mandatory parts of the recommendation.
// Every method returns the first thing that is wrong, or nil.
type checker struct {
	prefix  string          // with its colon, of the terms of TermsIRI; empty when unbound
	schemes map[string]bool // the names in securityDefinitions
}

// rule checks one value.
type rule func(at *place, n *node) error

func (c *checker) thing(n *node) error {
	for _, name := range []string{"@context", "title", "securityDefinitions", "security"} {
		if n.get(name) == nil {
			return malformed(nil, "%q is missing and mandatory", name)
		}
	}
	root := (*place)(nil)
	if err := c.context(root.at("@context"), n.get("@context")); err != nil {
		return err
	}
	definitions := n.get("securityDefinitions")
	c.schemes = make(map[string]bool)
	for _, m := range definitions.members {
		c.schemes[m.name] = true
	}
	// First, since everything that names one would look wrong otherwise.
	if err := mapOf(c.scheme, 1)(root.at("securityDefinitions"), definitions); err != nil {
		return err
	}
	rules := c.texts(map[string]rule{
		"id":                wantURI,
		"security":          c.security,
		"properties":        mapOf(c.affordance(c.property), 0),
		"actions":           mapOf(c.affordance(c.action), 0),
		"events":            mapOf(c.affordance(c.event), 0),
		"forms":             listOf(1, c.form("op", "readallproperties", "writeallproperties", "readmultipleproperties", "writemultipleproperties", "observeallproperties", "unobserveallproperties", "queryallactions", "subscribeallevents", "unsubscribeallevents")),
		"links":             listOf(0, link),
		"version":           fields(map[string]rule{"instance": wantString}, "instance"),
		"schemaDefinitions": mapOf(c.schema, 1),
		"uriVariables":      mapOf(c.schema, 0),
		"base":              wantString,
		"support":           wantString,
		"created":           wantTime,
		"modified":          wantTime,
		"profile":           oneOrMore(wantString),
	})
	if err := fields(rules)(nil, n); err != nil {
		return err
	}
	if n.get("title").text() == "" {
		return malformed(root.at("title"), "is empty, want a name for people")
	}
	return c.terms(nil, n, ofThing)
}

// texts adds the members for people, which every class of the model has.
func (c *checker) texts(rules map[string]rule) map[string]rule {
	rules["title"], rules["description"] = wantString, wantString
	rules["titles"], rules["descriptions"] = mapOf(wantString, 0), mapOf(wantString, 0)
	rules["@type"] = typeDeclaration
	return rules
}

func (c *checker) context(at *place, n *node) error {
	items := n.items
	if n.kind == isString {
		items = []*node{n}
	}
	if len(items) == 0 || items[0].text() != contextV1 && items[0].text() != contextV11 {
		return malformed(at, "want %q, alone or first in an array", contextV11)
	}
	for i, item := range items {
		at := at.index(i)
		switch {
		case i > 0 && item.text() == contextV1:
			return malformed(at, "%q must come first", contextV1)
		case item.kind == isString:
		case item.kind != isObject:
			return malformed(at, "is %s, want a context's URI or an object of prefixes", item.what())
		default:
			if err := c.prefixes(at, item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) prefixes(at *place, n *node) error {
	if err := mapOf(wantString, 0)(at, n); err != nil {
		return err
	}
	for _, m := range n.members {
		iri := m.node.text()
		switch {
		case iri == TermsIRI && c.prefix == "":
			c.prefix = m.name + ":"
		case iri == TermsIRI:
			return malformed(at.at(m.name), "%q has the prefix %q already", TermsIRI, c.prefix)
		case m.name == "carnet":
			return malformed(at.at(m.name), "the prefix is %q, want %q", iri, TermsIRI)
		}
	}
	return nil
}

var (
	headerOrBody = []string{"header", "query", "body", "cookie", "auto"}
	uriToo       = append([]string{"uri"}, headerOrBody...)
)

// scheme checks a security scheme (§5.3.3).
func (c *checker) scheme(at *place, n *node) error {
	rules := map[string]rule{"scheme": wantString, "proxy": wantString, "description": wantString, "descriptions": mapOf(wantString, 0), "@type": typeDeclaration}
	in := wantOneOf(headerOrBody...)
	switch name := n.get("scheme").text(); name {
	case "nosec":
	case "auto":
		if n.get("name") != nil {
			return malformed(at.at("name"), "the scheme \"auto\" has no name")
		}
	case "combo":
		return c.combo(at, n, rules)
	case "basic", "digest", "bearer":
		rules["in"], rules["name"] = in, wantString
		switch name {
		case "digest":
			rules["qop"] = wantOneOf("auth", "auth-int")
		case "bearer":
			rules["authorization"], rules["alg"], rules["format"] = wantString, wantString, wantString
		}
	case "apikey":
		rules["in"], rules["name"] = wantOneOf(uriToo...), wantString
	case "psk":
		rules["identity"] = wantString
	case "oauth2":
		for _, field := range []string{"authorization", "token", "refresh", "flow"} {
			rules[field] = wantString
		}
		rules["scopes"] = stringOrList(0)
	default:
		if i := strings.IndexByte(name, ':'); n.get("scheme") != nil && i < 1 {
			return malformed(at.at("scheme"), "%q is no scheme, want nosec, auto, combo, basic, digest, apikey, bearer, psk, oauth2, or a prefixed name", name)
		}
	}
	return fields(rules, "scheme")(at, n)
}

func (c *checker) combo(at *place, n *node, rules map[string]rule) error {
	if (n.get("oneOf") == nil) == (n.get("allOf") == nil) {
		return malformed(at, "the scheme \"combo\" wants either oneOf or allOf")
	}
	rules["oneOf"], rules["allOf"] = listOf(2, c.schemeName), listOf(2, c.schemeName)
	return fields(rules, "scheme")(at, n)
}

func (c *checker) schemeName(at *place, n *node) error {
	if err := wantString(at, n); err != nil {
		return err
	}
	if !c.schemes[n.text()] {
		return malformed(at, "%q is not in securityDefinitions", n.text())
	}
	return nil
}

func (c *checker) security(at *place, n *node) error {
	if n.kind == isString {
		return c.schemeName(at, n)
	}
	return listOf(1, c.schemeName)(at, n)
}

func (c *checker) affordance(own rule) rule {
	return func(at *place, n *node) error {
		if err := fields(c.texts(map[string]rule{"uriVariables": mapOf(c.schema, 0)}), "forms")(at, n); err != nil {
			return err
		}
		return own(at, n)
	}
}

func (c *checker) property(at *place, n *node) error {
	form := c.form("", "readproperty", "writeproperty", "observeproperty", "unobserveproperty")
	if err := fields(map[string]rule{"forms": listOf(1, form), "observable": wantBool})(at, n); err != nil {
		return err
	}
	return c.schema(at, n)
}

func (c *checker) action(at *place, n *node) error {
	rules := map[string]rule{
		"forms": listOf(1, c.form("", "invokeaction", "queryaction", "cancelaction")),
		"input": c.schema, "output": c.schema,
		"safe": wantBool, "idempotent": wantBool, "synchronous": wantBool,
	}
	return fields(rules)(at, n)
}

func (c *checker) event(at *place, n *node) error {
	rules := map[string]rule{
		"forms":        listOf(1, c.form("", "subscribeevent", "unsubscribeevent")),
		"subscription": c.schema, "data": c.schema, "dataResponse": c.schema, "cancellation": c.schema,
	}
	return fields(rules)(at, n)
}

// form checks a form (§5.3.4.2) whose op is among ops; with names a member that
// is mandatory beside href, or is empty.
func (c *checker) form(with string, ops ...string) rule {
	mandatory := []string{"href"}
	if with != "" {
		mandatory = append(mandatory, with)
	}
	answer := fields(map[string]rule{"contentType": wantString}, "contentType")
	more := fields(map[string]rule{"contentType": wantString, "schema": wantString, "success": wantBool})
	return fields(map[string]rule{
		"href": wantString, "op": oneOrMore(wantOneOf(ops...)), "security": c.security, "scopes": stringOrList(0),
		"contentType": wantString, "contentCoding": wantString, "subprotocol": wantString,
		"response": answer, "additionalResponses": listOf(0, more),
	}, mandatory...)
}

var dataTypes = []string{"boolean", "integer", "number", "string", "object", "array", "null"}

// schema checks a data schema (§5.3.2).
func (c *checker) schema(at *place, n *node) error {
	return fields(c.texts(map[string]rule{
		"type": wantOneOf(dataTypes...), "unit": wantString, "format": wantString,
		"readOnly": wantBool, "writeOnly": wantBool, "contentEncoding": wantString, "contentMediaType": wantString,
		"minimum": wantNumber, "maximum": wantNumber, "exclusiveMinimum": wantNumber, "exclusiveMaximum": wantNumber,
		"minLength": wantCount, "maxLength": wantCount, "minItems": wantCount, "maxItems": wantCount,
		"multipleOf": wantPositive, "pattern": wantString, "enum": wantEnum,
		"required": listOf(0, wantString), "oneOf": listOf(0, c.schema), "items": oneOrList(c.schema),
		"properties": mapOf(c.schema, 0),
	}))(at, n)
}

var sizes = regexp.MustCompile(`[0-9]*x[0-9]+`)

// link checks a link (§5.3.4.1): only an icon has sizes.
func link(at *place, n *node) error {
	rules := map[string]rule{"href": wantString, "type": wantString, "rel": wantString, "anchor": wantString, "hreflang": stringOrList(0)}
	if err := fields(rules, "href")(at, n); err != nil {
		return err
	}
	switch size, rel := n.get("sizes"), n.get("rel").text(); {
	case rel == "tm:extends":
		return malformed(at.at("rel"), "a thing does not extend a thing model, want tm:instanceOf, type")
	case size != nil && rel != "icon":
		return malformed(at.at("sizes"), "only a link with rel \"icon\" has sizes")
	case size != nil && !sizes.MatchString(size.text()):
		return malformed(at.at("sizes"), "want width x height, as in \"32x32\"")
	}
	return nil
}

func typeDeclaration(at *place, n *node) error {
	if err := stringOrList(0)(at, n); err != nil {
		return err
	}
	for _, s := range append([]*node{n}, n.items...) {
		if s.text() == "tm:ThingModel" {
			return malformed(at, "this is a thing model, want the description of a thing")
		}
	}
	return nil
}

func wantTime(at *place, n *node) error {
	if _, err := time.Parse(time.RFC3339, n.text()); err != nil {
		return malformed(at, "want a time as in 2026-01-31T12:00:00Z")
	}
	return nil
}
