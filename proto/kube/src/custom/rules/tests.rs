use serde_json::{Map, json};

use super::*;
use crate::custom::definition::Ruled;

/// A kind whose spec is that schema.
fn kind(spec: serde_json::Value) -> Structural {
    Structural::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

fn object(value: serde_json::Value) -> Map<String, serde_json::Value> {
    value.as_object().unwrap().clone()
}

fn texts(errors: &[crate::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What is wrong with a new object with that spec.
fn created(schema: &Structural, spec: serde_json::Value) -> Vec<String> {
    texts(&Rules::compile(schema).create(schema, &object(json!({"spec": spec}))).errors)
}

fn updated(schema: &Structural, new: serde_json::Value, old: serde_json::Value) -> Asked {
    Rules::compile(schema).update(schema, &object(json!({"spec": new})), &object(json!({"spec": old})))
}

fn problems(schema: &Structural) -> Vec<String> {
    texts(&check(&Ruled { schema, path: "schema", unchanged: false }))
}

fn with_rule(spec: serde_json::Value, rule: serde_json::Value) -> Structural {
    let mut spec = spec;
    spec["x-kubernetes-validations"] = json!([rule]);
    kind(spec)
}

fn integers() -> serde_json::Value {
    json!({"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}}}})
}

#[test]
fn rules_are_shared_by_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&Rules::compile(&kind(integers())));
}

#[test]
fn a_broken_rule_is_an_error_at_its_place() {
    let schema = with_rule(integers(), json!({"rule": "self.min <= self.max"}));
    assert!(problems(&schema).is_empty());
    assert!(created(&schema, json!({"min": 1, "max": 2})).is_empty());
    assert_eq!(
        created(&schema, json!({"min": 3, "max": 2})),
        ["spec: Invalid value: failed rule: self.min <= self.max"]
    );
    // What is not there cannot be compared.
    assert_eq!(
        created(&schema, json!({"min": 3})),
        ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"]
    );
    let scalar = kind(json!({"type": "object", "properties": {"size": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self % 2 == 0", "message": " must be even "}]}}}));
    assert_eq!(created(&scalar, json!({"size": 3})), ["spec.size: Invalid value: 3: must be even"]);
}

#[test]
fn messages_reasons_and_paths_are_the_rules_own() {
    let rule = |more: serde_json::Value| {
        let mut rule = json!({"rule": "self.min <= self.max", "message": "plain"});
        rule.as_object_mut().unwrap().extend(object(more));
        with_rule(integers(), rule)
    };
    let wrong = json!({"min": 3, "max": 2});
    for (more, expected) in [
        (json!({}), "spec: Invalid value: plain"),
        (
            json!({"messageExpression": "'min %d is too much'.format([self.min])"}),
            "spec: Invalid value: min 3 is too much",
        ),
        // What is no message falls back to the one that is written.
        (json!({"messageExpression": "'  '"}), "spec: Invalid value: plain"),
        (json!({"messageExpression": "'a\\nb'"}), "spec: Invalid value: plain"),
        (json!({"messageExpression": "string(1 / (self.min - 3))"}), "spec: Invalid value: plain"),
        (json!({"reason": "FieldValueForbidden"}), "spec: Forbidden: plain"),
        (json!({"reason": "FieldValueRequired"}), "spec: Required value: plain"),
        (json!({"reason": "FieldValueDuplicate"}), "spec: Duplicate value"),
        (json!({"fieldPath": ".min"}), "spec.min: Invalid value: plain"),
        (json!({"fieldPath": "['labels']['a.b']"}), "spec.labels[a.b]: Invalid value: plain"),
    ] {
        let schema = rule(more);
        assert_eq!(problems(&schema), [""; 0]);
        assert_eq!(created(&schema, wrong.clone()), [expected]);
    }
}

#[test]
fn rules_are_asked_wherever_they_stand() {
    let even = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self % 2 == 0"}]});
    let schema = kind(json!({"type": "object", "properties": {
        "list": {"type": "array", "items": even},
        "map": {"type": "object", "additionalProperties": even},
        "deep": {"type": "array", "items": {"type": "object", "properties": {"a-b": even}}},
        "null": {"type": "integer", "nullable": true, "x-kubernetes-validations": [{"rule": "self > 0"}]},
    }}));
    assert_eq!(
        created(&schema, json!({"list": [2, 3], "map": {"a": 5, "b": 4}, "deep": [{"a-b": 7}], "null": null})),
        [
            "spec.deep[0].a-b: Invalid value: 7: failed rule: self % 2 == 0",
            "spec.list[1]: Invalid value: 3: failed rule: self % 2 == 0",
            "spec.map[a]: Invalid value: 5: failed rule: self % 2 == 0",
        ]
    );
    let nested = kind(json!({"type": "object", "properties": {"a": {"type": "integer"}}, "allOf": [
        {"properties": {"a": {"x-kubernetes-validations": [{"rule": "self > 1"}]}},
         "x-kubernetes-validations": [{"rule": "has(self.a)"}]}]}));
    assert_eq!(created(&nested, json!({"a": 1})), ["spec.a: Invalid value: 1: failed rule: self > 1"]);
    assert_eq!(created(&nested, json!({})), ["spec: Invalid value: failed rule: has(self.a)"]);
}

#[test]
fn the_root_sees_names_and_no_other_metadata() {
    let root = |rule: &str| {
        Structural::compile(&json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}],
            "properties": {"metadata": {"type": "object"}, "spec": {"type": "object", "properties": {}}}}))
        .unwrap()
    };
    let named = root(
        "self.metadata.name.startsWith('a') && self.kind == 'K' && self.apiVersion == 'g/v1' && !has(self.metadata.generateName)",
    );
    let made = object(json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "b", "labels": {}}}));
    let errors = Rules::compile(&named).create(&named, &made).errors;
    assert!(texts(&errors)[0].starts_with("<nil>: Invalid value: failed rule: self.metadata.name"), "{errors:?}");
    let labelled = root("has(self.metadata.labels)");
    assert!(problems(&labelled)[0].contains("compilation failed: ERROR: <input>:1:18: undefined field 'labels'"));
    let embedded = kind(json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-validations": [{"rule": "self.kind == 'Pod' && self.metadata.name != ''"}]}));
    assert!(problems(&embedded).is_empty());
    assert!(created(&embedded, json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {}})).is_empty());
    assert_eq!(created(&embedded, json!({"kind": "Node", "metadata": {"name": "a"}})).len(), 1);
}

#[test]
fn rules_of_changes_are_asked_of_changes() {
    let rule = |rule: serde_json::Value| with_rule(integers(), rule);
    let schema = rule(json!({"rule": "self.max >= oldSelf.max", "message": "no less"}));
    assert!(problems(&schema).is_empty());
    assert!(created(&schema, json!({"max": 1})).is_empty());
    assert!(updated(&schema, json!({"max": 2}), json!({"max": 1})).errors.is_empty());
    // Such rules are never passed over for what a change does not touch.
    assert_eq!(texts(&updated(&schema, json!({"max": 1}), json!({"max": 2})).errors), ["spec: Invalid value: no less"]);
    let optional = rule(
        json!({"rule": "oldSelf.hasValue() ? self.max >= oldSelf.value().max : self.max == 0", "optionalOldSelf": true}),
    );
    assert!(problems(&optional).is_empty());
    assert_eq!(created(&optional, json!({"max": 1})).len(), 1);
    assert!(created(&optional, json!({"max": 0})).is_empty());
    assert!(updated(&optional, json!({"max": 5}), json!({"max": 1})).errors.is_empty());
}

#[test]
fn items_are_told_again_by_their_keys() {
    let schema = kind(json!({"type": "object", "properties": {"parts": {"type": "array", "maxItems": 10,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size"}]}}}}));
    assert_eq!(problems(&schema), [""; 0]);
    let old = json!({"parts": [{"name": "a", "size": 1}, {"name": "b", "size": 5}]});
    let new = json!({"parts": [{"name": "b", "size": 4}, {"name": "c", "size": 0}, {"name": "a", "size": 2}]});
    assert_eq!(
        texts(&updated(&schema, new, old).errors),
        ["spec.parts[0]: Invalid value: failed rule: self.size >= oldSelf.size"]
    );
}

#[test]
fn what_a_change_does_not_touch_need_not_be_mended() {
    let schema = kind(json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
        "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}},
        "b": {"type": "string"},
    }}));
    let old = json!({"a": 0, "list": [0], "b": "x"});
    let asked = updated(&schema, json!({"a": 0, "list": [0], "b": "y"}), old.clone());
    assert_eq!(texts(&asked.errors), [""; 0]);
    assert_eq!(
        asked.warnings,
        ["spec.a: Invalid value: 0: failed rule: self > 0", "spec.list[0]: Invalid value: 0: failed rule: self > 0"]
    );
    // Items of a list that is no map are told again only while the whole list stays.
    let asked = updated(&schema, json!({"a": -1, "list": [0, 1], "b": "x"}), old);
    assert_eq!(
        texts(&asked.errors),
        ["spec.a: Invalid value: -1: failed rule: self > 0", "spec.list[0]: Invalid value: 0: failed rule: self > 0"]
    );
}

#[test]
fn rules_that_do_not_compile_are_problems_of_the_definition() {
    let text = json!({"type": "object", "properties": {"foo": {"type": "string", "maxLength": 5}}});
    let problem = |rule: serde_json::Value| problems(&with_rule(text.clone(), rule)).join("\n");
    assert_eq!(
        problem(json!({"rule": "self.bar > 0"})),
        "schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.bar \\u003e 0\",\
         \"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: \
         ERROR: <input>:1:5: undefined field 'bar'\n | self.bar > 0\n | ....^"
    );
    for (rule, at, what) in [
        (json!({"rule": "self.foo"}), "rule", "cel expression must evaluate to a bool"),
        (
            json!({"rule": "int('a') == 1"}),
            "rule",
            "program instantiation failed: type conversion error from 'string' to 'int'",
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            "messageExpression",
            "messageExpression must evaluate to a string",
        ),
        (
            json!({"rule": "true", "messageExpression": "x"}),
            "messageExpression",
            "messageExpression compilation failed: ERROR: <input>:1:1: undeclared reference to 'x' (in container '')",
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "optionalOldSelf",
            "Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
    ] {
        let found = problem(rule.clone());
        let place = format!("schema.properties[spec].x-kubernetes-validations[0].{at}: ");
        assert!(found.starts_with(&place) && found.contains(what), "{rule}: {found}");
    }
}

#[test]
fn changes_of_what_cannot_be_told_again_have_no_rules() {
    let schema = kind(json!({"type": "object", "properties": {"list": {"type": "array", "maxItems": 3,
        "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}}));
    assert_eq!(
        problems(&schema),
        [
            "schema.properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Invalid value: \"self >= oldSelf\": \
          oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec].properties[list]"
        ]
    );
}

#[test]
fn rules_that_could_cost_too_much_are_refused() {
    let nested = |bounds: [Option<u64>; 2]| {
        let mut inner = json!({"type": "array", "items": {"type": "string", "maxLength": 10}});
        if let Some(most) = bounds[1] {
            inner["maxItems"] = json!(most);
        }
        let mut outer = json!({"type": "array", "items": inner});
        if let Some(most) = bounds[0] {
            outer["maxItems"] = json!(most);
        }
        with_rule(
            json!({"type": "object", "properties": {"list": outer}}),
            json!({"rule": "self.list.all(x, x.all(y, self.list.all(z, z.all(w, w == y))))"}),
        )
    };
    assert!(problems(&nested([Some(5), Some(5)])).is_empty());
    assert_eq!(
        problems(&nested([Some(30), Some(60)])),
        [
            "schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of \
          2.9x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are \
          declared)"
        ]
    );
    let found = problems(&nested([None, None]));
    assert!(found[0].contains("estimated rule cost exceeds budget by factor of more than 100x"), "{found:?}");
    assert!(
        found[1].contains("contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema")
    );
    assert!(found[2].starts_with(
        "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor"
    ));
    // A definition that is written again as it was may keep them, for each by itself.
    let schema = nested([Some(30), Some(60)]);
    assert!(check(&Ruled { schema: &schema, path: "schema", unchanged: true }).is_empty());
}

#[test]
fn what_is_evaluated_is_bounded() {
    let text = json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "string"}}}});
    let list: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let schema = with_rule(text.clone(), json!({"rule": "!self.list.exists(x, self.list.exists(y, y + x == 'z'))"}));
    assert_eq!(
        created(&schema, json!({"list": list})),
        [
            "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be \
          run due to call cost exceeds limit for rule: !self.list.exists(x, self.list.exists(y, y + x == 'z'))"
        ]
    );
    let many = json!({"rule": "self.list.all(x, x.size() > 0 && x.size() < 100 && x.size() < 100 && x.size() < 100)"});
    let mut spec = text;
    spec["x-kubernetes-validations"] = json!(vec![many; 300]);
    let errors = created(&kind(spec), json!({"list": list}));
    assert_eq!(
        errors,
        [
            "spec: Invalid value: \"object\": validation failed due to running out of cost budget, no further validation rules will be run"
        ]
    );
}

#[test]
fn lists_are_compared_as_they_are_declared() {
    let schema = |list_type: &str, rule: &str| {
        let items = if list_type == "map" {
            json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}})
        } else {
            json!({"type": "string"})
        };
        let list = json!({"type": "array", "x-kubernetes-list-type": list_type, "items": items,
            "x-kubernetes-list-map-keys": if list_type == "map" { json!(["k"]) } else { json!([]) }});
        with_rule(json!({"type": "object", "properties": {"a": list, "b": list}}), json!({"rule": rule}))
    };
    let holds = |list_type: &str, rule: &str, spec: serde_json::Value| {
        let schema = schema(list_type, rule);
        let compiles = problems(&schema).iter().all(|problem| problem.contains("cost"));
        assert!(compiles, "{rule}: {:?}", problems(&schema));
        assert_eq!(created(&schema, spec), [""; 0], "{rule}");
    };
    let texts = json!({"a": ["x", "y"], "b": ["y", "x"]});
    holds("set", "self.a == self.b", texts.clone());
    holds("atomic", "self.a != self.b", texts.clone());
    holds(
        "set",
        "self.a + self.b == self.a && (self.a + ['z']).size() == 3 && self.a + ['z'] == ['z', 'y', 'x']",
        texts.clone(),
    );
    holds("atomic", "(self.a + self.b).size() == 4 && self.a == ['x', 'y']", texts);
    let items = json!({"a": [{"k": "1", "v": 1}, {"k": "2", "v": 2}], "b": [{"k": "2", "v": 2}, {"k": "1", "v": 1}]});
    // Items of two places have two types.
    holds("map", "dyn(self.a) == dyn(self.b) && (dyn(self.a) + dyn(self.b)).size() == 2", items);
    let items = json!({"a": [{"k": "1", "v": 1}], "b": [{"k": "1", "v": 2}]});
    holds("map", "dyn(self.a) != dyn(self.b) && (dyn(self.a) + dyn(self.b))[0].v == 2", items);
}

#[test]
fn types_are_read_by_the_schema() {
    let schema = with_rule(
        json!({"type": "object", "properties": {
            "port": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "after": {"type": "string", "format": "duration"},
            "bytes": {"type": "string", "format": "byte"},
            "ratio": {"type": "number"},
            "x-prop": {"type": "string"},
            "namespace": {"type": "string"},
            "gone": {"type": "string", "nullable": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "nullable": true}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}),
        json!({"rule": "(type(self.port) == int ? self.port > 5 : self.port == 'http') \
            && self.when > timestamp('2020-01-01T00:00:00Z') && self.day.getFullYear() == 2026 \
            && self.after == duration('36h') && self.bytes == b'hi' && self.ratio == 2.0 \
            && self.x__dash__prop == 'x' && self.__namespace__ == 'n' && !has(self.gone) \
            && self.labels['a'] == 'b' && self.labels.all(k, k != '') && 'a' in self.labels \
            && dyn(self.labels['n']) == null && has(self.free)"}),
    );
    assert_eq!(problems(&schema), [""; 0]);
    let mut spec = json!({"port": 80, "when": "2026-01-02T03:04:05Z", "day": "2026-01-02", "after": "1 day 12h", "bytes": "aGk=",
        "ratio": 2, "x-prop": "x", "namespace": "n", "gone": null, "labels": {"a": "b", "n": null}, "free": {"any": 1}});
    assert_eq!(created(&schema, spec.clone()), [""; 0]);
    spec["port"] = json!("http");
    assert_eq!(created(&schema, spec.clone()), [""; 0]);
    spec["port"] = json!("other");
    assert_eq!(created(&schema, spec).len(), 1);
}

/// What an evaluation costs, and the most that it could.
fn costs(schema: &serde_json::Value, value: &serde_json::Value, rule: &str) -> (u64, u64) {
    let schema = Structural::compile(schema).unwrap();
    let decl = declare::declare(&schema, true, "selfType").unwrap();
    let program = Env::new().declared(SELF, &decl).compile(rule).unwrap();
    let value = crate::cel::data::read(value, &decl).unwrap();
    let evaluation = program.evaluate(&[Some(value)], crate::cel::CALL_COST_MAX);
    assert!(evaluation.outcome.unwrap().is_true(), "{rule}");
    (evaluation.cost, program.cost_max())
}

#[test]
fn costs_are_those_of_kubernetes() {
    let schema = json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "s": {"type": "string"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {
            "k": {"type": "string"}, "v": {"type": "string"}, "w": {"type": "string"}}}},
        "port": {"x-kubernetes-int-or-string": true},
    }});
    let value = json!({"n": 5, "s": "Rook takes 👑", "list": [1, 1, 2, 2, 3, 3, 4, 5], "map": {"b": 1, "d": 2}, "port": 1,
        "parts": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "w": "z"}]});
    for (rule, cost, most) in [
        ("self.n == self.n", 5, Some(4)),
        ("type(self.n) == int", 4, Some(4)),
        ("double(self.n) < 10.0", 4, Some(4)),
        ("self.s.startsWith('Rook')", 4, None),
        ("self.s.matches('^[^0-9]*$')", 8, Some(943_721)),
        ("self.s.split(' ') == ['Rook', 'takes', '👑']", 6, None),
        ("self.s.lowerAscii() == self.s.lowerAscii()", 10, None),
        ("2 in self.list", 10, Some(1_572_865)),
        ("self.list.all(e, e > 0)", 43, Some(7_864_318)),
        ("self.list.exists(e, e > 2)", 36, Some(9_437_181)),
        ("self.list.exists_one(e, e > 4)", 22, Some(6_291_456)),
        ("size(self.list.filter(e, e % 2 == 0)) == 3", 68, Some(25_165_823)),
        ("self.list.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194, Some(53_477_367)),
        ("self.list.transformList(i, e, e > 2, e * 2).size() > 0", 77, None),
        ("self.map.all(k, self.map[k] > 0)", 17, Some(3_595_115)),
        ("self.map.exists_one(k, self.map[k] == 2)", 14, Some(2_696_338)),
        ("self.map.transformMapEntry(k, v, v > 1, {k + '2': v + 1}).size() == 1", 45, None),
        ("self.parts.all(m, !has(m.w) || m.w == 'z')", 21, Some(8_388_603)),
        ("self.parts.exists(m, m.w == 'z')", 24, Some(7_340_028)),
        ("self.parts.map(m, m.v).exists(v, v == 'b1')", 55, Some(19_922_939)),
        ("type(self.port) == int ? self.port == 1 : self.port == '25%'", 7, Some(7)),
        ("sets.equivalent(self.list, [1, 2, 3, 4, 5])", 83, None),
    ] {
        let (found, found_most) = costs(&schema, &value, rule);
        assert_eq!((found, most.map_or(most, |_| Some(found_most))), (cost, most), "{rule}");
    }
}

#[test]
fn defaults_keep_the_rules() {
    let schema = |rule: &str, optional: bool| {
        let mut rule = json!({"rule": rule});
        if optional {
            rule["optionalOldSelf"] = json!(true);
        }
        kind(json!({"type": "object", "properties": {"size": {"type": "integer", "default": 0,
            "x-kubernetes-validations": [rule]}}}))
    };
    assert_eq!(problems(&schema("self >= 0", false)), [""; 0]);
    assert_eq!(
        problems(&schema("self > 0", false)),
        ["schema.properties[spec].properties[size].default: Invalid value: 0: failed rule: self > 0"]
    );
    // A default is a value that is new, too.
    assert_eq!(problems(&schema("self >= oldSelf", false)), [""; 0]);
    assert_eq!(
        problems(&schema("oldSelf.hasValue()", true)),
        ["schema.properties[spec].properties[size].default: Invalid value: 0: failed rule: oldSelf.hasValue()"]
    );
}
