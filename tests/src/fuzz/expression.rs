//! Expressions of CEL, as definitions of custom kinds bring them.
//!
//! What is read prints and reads back as itself; what compiles is evaluated against an object within its cost, twice the same.

use std::sync::{Arc, LazyLock};

use gantry_kube::cel::parser::parse;
use gantry_kube::cel::{Decl, Env, Fault, Type, Value, data};
use gantry_kube::custom::{Rules, Structural};
use serde_json::{Value as Json, json};

use super::input::texts;

/// Enough for every part of an expression, and soon at an end.
const COST_MAX: u64 = 20_000;

static OBJECT: LazyLock<Json> = LazyLock::new(|| {
    json!({"size": 3, "name": "é", "list": [1, "a", null, [2], {"field": 3}], "map": {"field": "x", "b": 2}, "none": null,
        "time": "2026-01-02T03:04:05Z", "port": "http"})
});

/// Nothing is known of the variables but of the last, which is declared to be a text.
static ENV: LazyLock<Env> = LazyLock::new(|| {
    let text = Arc::new(Decl::new(gantry_kube::cel::DeclKind::String, 100, 2));
    Env::new().variable("self", Type::Dyn).variable("x", Type::Dyn).declared("text", &text)
});

pub(super) fn cel(input: &[u8]) {
    let Ok(source) = std::str::from_utf8(input) else { return };
    if let Ok(expr) = parse(source) {
        let printed = expr.to_string();
        let again = parse(&printed).unwrap_or_else(|issues| panic!("{printed:?} does not read back: {issues}"));
        assert!(again == expr, "{printed:?} reads back as something else");
    }
    match ENV.compile(source) {
        Err(error) => drop(error.to_string()),
        Ok(program) => {
            let variables = [Some(data::read_any(&OBJECT)), Some(Value::borrowed("x")), Some(Value::borrowed("text"))];
            let once = program.evaluate(&variables, COST_MAX);
            assert!(once.cost <= COST_MAX || matches!(once.outcome, Err(Fault::Exhausted)));
            let twice = program.evaluate(&variables, COST_MAX);
            assert_eq!(once.cost, twice.cost);
            if let (Ok(a), Ok(b)) = (once.outcome, twice.outcome) {
                assert_eq!(a.to_string(), b.to_string());
            }
        }
    }
    rule(source);
}

/// The same text as a rule of a kind, for a new object and for a change.
fn rule(source: &str) {
    let schema = json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true},
        "time": {"type": "string", "format": "date-time"},
        "map": {"type": "object", "additionalProperties": {"type": "string", "nullable": true}},
        "list": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
    }, "x-kubernetes-validations": [{"rule": source, "messageExpression": source}]});
    let Ok(schema) = Structural::compile(&schema) else { return };
    let rules = Rules::compile(&schema);
    let Some(object) = OBJECT.as_object() else { return };
    let (created, updated) = (rules.create(&schema, object), rules.update(&schema, object, object));
    assert!(created.errors.len() <= 1 && updated.errors.len() + updated.warnings.len() <= 1);
}

pub(super) fn cel_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "self.size > 2 && self.name.startsWith('é') || has(self.none)",
        "self.list.all(v, type(v) == int ? v > 0 : true) && self.map.exists(k, k == 'field')",
        "self.list.filter(v, v != null).map(v, string(v)).join(',') == '1,a'",
        "self.map.transformMap(k, v, k + 'x').transformMapEntry(k, v, {v: k}).size() == [1, 2].transformList(i, v, i).size()",
        "self.?map.?field.orValue('x').matches(r'^[a-z]{1,3}$') && self.map[?'b'].optMap(v, v + 1).hasValue()",
        "'%s %d %.2f %x'.format(['a', 1, 2.5, 255]) == 'a 1 2.50 ff' && [3, 1, 2].sort().reverse() == [3, 2, 1]",
        "timestamp('2026-01-02T03:04:05Z') + duration('1h30m') > timestamp(0) && duration('90s').getMinutes() == 1",
        "quantity('1.5Gi').isGreaterThan(quantity('1G')) && url('https://a:80/b?c=d').getPort() == '80' && isIP('::1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && semver('1.2.3').major() == 1 && !format.uuid().validate('x').hasValue()",
        "self.size == oldSelf.size && self.list == [1] + self.list && self.list.sortBy(v, v)[0] in [1, 2, 3]",
        "b'\\xff\\377' != b'a' && \"\"\"a\n\"b\"\"\"\" == r'x' // comment\n ? -1 : 0x1F - 2",
        "[[1], [2, 3]].flatten().distinct().sum() / 0 == 1 || 18446744073709551615u - 1u > 2u % 3u",
        "text.replace('t', 'tt').split('').findAll('a')[0].charAt(1).lowerAscii().substring(0, 1)",
        "{'a': 1, ?'b': optional.none()}.a == 1 && [?optional.of(1), 2].exists_one(x, x == 1)",
        "((((((1 + 2) * 3) - 4) / 5) % 6) == 7) != !!false && --1 < - 1",
    ])
}
