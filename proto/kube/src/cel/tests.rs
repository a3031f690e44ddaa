//! The language, by tables of what its definition says.

use proptest::prelude::*;
use serde_json::json;

use super::ast::Expr;
use super::data::read_any;
use super::parser::{DEPTH_MAX, parse};
use super::*;

/// What comes of an expression without variables: its value as errors print it, or why it has none.
pub(super) fn outcome(source: &str) -> String {
    with(&Env::new(), source, &[])
}

fn with(env: &Env, source: &str, variables: &[Option<Value<'_>>]) -> String {
    match env.compile(source) {
        Ok(program) => match program.evaluate(variables, CALL_COST_MAX).outcome {
            Ok(value) => value.to_string(),
            Err(fault) => format!("! {fault}"),
        },
        Err(CompileError::Issues(issues)) => format!("? {}", issues.list()[0].message),
        Err(CompileError::Instantiation(fault)) => format!("! {fault}"),
    }
}

#[track_caller]
pub(super) fn holds(table: &[&str]) {
    for source in table {
        assert_eq!(outcome(source), "true", "{source}");
    }
}

#[track_caller]
pub(super) fn gives(table: &[(&str, &str)]) {
    for (source, expected) in table {
        assert_eq!(outcome(source), *expected, "{source}");
    }
}

#[test]
fn literals() {
    holds(&[
        "0x1F == 31 && -0x1f == -31 && 31u == 0x1fu",
        "1e3 == 1000.0 && .5 == 0.5 && -1.5e-2 == -0.015",
        r#"'\x41\u00e9\U0001F600\101\n' == "Aé😀A\u000a""#,
        r#"r'\n'.size() == 2 && R"a\" == 'a\\'"#,
        "'''a'b\n''' == \"a'b\\n\" && \"\"\"\"x\" \"\"\" == '\"x\" '",
        r"b'\xff\377a' == b'\377\xffa' && b'é'.size() == 2 && 'é'.size() == 1",
        r"bytes('é') == b'é' && string(b'\303\251') == 'é'",
        "-9223372036854775808 < 9223372036854775807 && 18446744073709551615u > 0u",
        "true != false && null == null",
        "[1, 2, 3,].size() == 3 && {'a': 1,}.size() == 1 // trailing commas",
    ]);
    gives(&[
        ("9223372036854775808", "? invalid int literal"),
        ("18446744073709551616u", "? invalid uint literal"),
        ("1e999", "? invalid double literal"),
        (r"'\ud800'", "? invalid unicode code point"),
        (r"'\q'", "? unable to unescape string"),
        ("'abc", "? Syntax error: token recognition error at: ''abc'"),
        ("for", "? reserved identifier: for"),
        ("1 = 1", "? Syntax error: token recognition error at: '='"),
        ("(1", "? Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("1 1", "? Syntax error: mismatched input '1' expecting <EOF>"),
    ]);
}

#[test]
fn precedence() {
    holds(&[
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 - 2 - 1 == 4 && 8 / 4 / 2 == 1",
        "!false && !!true && --1 == 1 && -(-1) == 1",
        "true || false && false",
        "false ? 1 == 2 : true ? true : false",
        "1 < 2 == true && 1 in [1] == true",
        "[[1, 2], [3]][0][1] == 2 && {'a': {'b': 3}}.a.b == 3",
    ]);
}

#[test]
fn integers_that_do_not_fit_are_errors() {
    gives(&[
        ("9223372036854775807 + 1", "! integer overflow"),
        ("-9223372036854775808 - 1", "! integer overflow"),
        ("9223372036854775807 * 2", "! integer overflow"),
        ("-(-9223372036854775808)", "! integer overflow"),
        ("-9223372036854775808 / -1", "! integer overflow"),
        ("-9223372036854775808 % -1", "! integer overflow"),
        ("18446744073709551615u + 1u", "! unsigned integer overflow"),
        ("0u - 1u", "! unsigned integer overflow"),
        ("1 / 0", "! division by zero"),
        ("1u / 0u", "! division by zero"),
        ("1 % 0", "! modulus by zero"),
        ("1.0 / 0.0 > 1.0", "true"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("1 + 1u", "? found no matching overload for '_+_' applied to '(int, uint)'"),
        ("-1u", "? found no matching overload for '-_' applied to '(uint)'"),
    ]);
}

#[test]
fn numbers_are_compared_as_numbers() {
    holds(&[
        "1 < 1.5 && 2u > 1.5 && -1 < 1u && 1u <= 1 && 1.0 >= 1u",
        "dyn(1) == dyn(1.0) && dyn(1) == dyn(1u) && dyn(1.5) != dyn(1)",
        // A float is nearest to the one of these that it is.
        "9223372036854775807 < 9223372036854775807.0 && dyn(9007199254740993) != dyn(9007199254740992.0)",
        "dyn(-1) < dyn(18446744073709551615u)",
        "{1: 'a'}[dyn(1u)] == 'a' && {1u: 'a'}[dyn(1.0)] == 'a' && dyn(1.0) in [1, 2]",
        "!(0.0 / 0.0 == 0.0 / 0.0) && 0.0 == -0.0",
        "dyn(1) != dyn('1') && dyn(null) != dyn(0)",
    ]);
    gives(&[
        ("1 == 1.0", "? found no matching overload for '_==_' applied to '(int, double)'"),
        ("0.0 / 0.0 < 1.0", "! NaN values cannot be ordered"),
        ("dyn(1) < dyn('a')", "! no such overload"),
    ]);
}

#[test]
fn what_decides_absorbs_errors() {
    holds(&[
        "!(false && 1 / 0 > 0) && !(1 / 0 > 0 && false)",
        "true || 1 / 0 > 0 ",
        "1 / 0 > 0 || true",
        "![1, 0].all(x, 1 / x > 5) && [0, 1].exists(x, 1 / x == 1)",
        "true ? true : 1 / 0 > 0",
    ]);
    gives(&[
        ("true && 1 / 0 > 0", "! division by zero"),
        ("1 / 0 > 0 || false", "! division by zero"),
        ("[0, 1].all(x, 1 / x == 1)", "! division by zero"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "! division by zero"),
        ("dyn(1) && true", "! no such overload"),
        ("1 && true", "? expected type 'bool' but found 'int'"),
        ("1 / 0 > 0 ? true : true", "! division by zero"),
    ]);
}

#[test]
fn texts_and_bytes() {
    holds(&[
        "'a' < 'b' && 'ab' > 'a' && 'é' > 'z' && 'a' + 'b' == 'ab'",
        r"b'a' < b'\xff' && b'a' + b'b' == b'ab' && b''.size() == 0",
        "'hello'.contains('ll') && 'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'x'.contains('')",
        "'hello'.matches('^h.*o$') && matches('xhellox', 'hello')",
        "size('😀') == 1 && 'kiss😘'.endsWith('😘')",
    ]);
    gives(&[
        (r"string(b'\xff')", "! invalid UTF-8 in bytes, cannot convert to string"),
        ("'a'.matches('(')", "? invalid matches argument"),
        ("dyn('a') + dyn(1)", "! no such overload"),
    ]);
}

#[test]
fn lists_and_maps() {
    holds(&[
        "[1, 2] + [3] == [1, 2, 3] && [] + [] == [] && [1] != [1, 2]",
        "{'a': 1, 'b': 2} == {'b': 2, 'a': 1} && {'a': 1} != {'a': 2} && {'a': 1} != {'b': 1}",
        "[[1], [2]] == [[1], [2]] && {'a': [1]} == {'a': [1]}",
        "2 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1} && !('b' in {'a': 1})",
        "1 in [dyn(1.0)] && !([] == [1]) && {}.size() == 0",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "{true: 'x'}[true] == 'x' && {1u: 2}[1u] == 2",
        "[1, 2, 3][1] == 2",
    ]);
    gives(&[
        ("[1][1]", "! index out of bounds: 1"),
        ("[1][-1]", "! index out of bounds: -1"),
        ("{'a': 1}['b']", "! no such key: b"),
        ("{'a': 1}.b", "! no such key: b"),
        ("{'a': 1, 'a': 2}", "! insert failed: key a already exists"),
        ("[1]['a']", "? found no matching overload for '_[_]' applied to '(list(int), string)'"),
        ("[1, 'a']", "? expected type 'int' but found 'string'"),
        ("{'a': 1, 'b': 'c'}", "? expected type 'int' but found 'string'"),
        ("{'a': 1, 2: 3}", "? expected type 'string' but found 'int'"),
        ("[1].a", "? type 'list(int)' does not support field selection"),
        ("a.b", "? undeclared reference to 'a' (in container '')"),
        ("f(1)", "? undeclared reference to 'f' (in container '')"),
        ("Foo{a: 1}", "? undeclared reference to 'Foo' (in container '')"),
    ]);
}

#[test]
fn conversions() {
    holds(&[
        "int('42') == 42 && int(42u) == 42 && int(-3.9) == -3 && int('-7') == -7",
        "uint('42') == 42u && uint(3.9) == 3u && double('1.5') == 1.5 && double(2) == 2.0",
        "string(1) == '1' && string(1u) == '1' && string(true) == 'true' && string(-1.5) == '-1.5'",
        "string(1000000.0) == '1e+06' && string(123456.0) == '123456' && string(0.00001) == '1e-05'",
        "bool('true') && !bool('False') && bool('1')",
        "type(1) == int && type(1u) == uint && type(1.0) == double && type('') == string && type(b'') == bytes",
        "type([]) == list && type({}) == map && type(null) == null_type && type(true) == bool && type(int) == type",
        "type(timestamp(0)) == google.protobuf.Timestamp && type(duration('1s')) == google.protobuf.Duration",
        "type(optional.none()) == optional_type && dyn(1) == 1",
    ]);
    gives(&[
        ("int('a')", "! type conversion error from 'string' to 'int'"),
        ("int(1e19)", "! integer overflow"),
        ("int(18446744073709551615u)", "! integer overflow"),
        ("uint(-1)", "! unsigned integer overflow"),
        ("uint('+1')", "! type conversion error from 'string' to 'uint'"),
        ("bool('yes')", "! type conversion error from 'string' to 'bool'"),
        ("int(dyn([]))", "! no such overload"),
    ]);
}

#[test]
fn moments_and_durations() {
    holds(&[
        "timestamp('2009-02-13T23:31:30Z') == timestamp(1234567890)",
        "timestamp('2009-02-13T23:31:30+02:00') < timestamp('2009-02-13T23:31:30Z')",
        "int(timestamp('2009-02-13T23:31:30.999Z')) == 1234567890",
        "timestamp('2009-02-13T23:31:00Z') + duration('240s') == timestamp('2009-02-13T23:35:00Z')",
        "duration('1h') + timestamp(0) == timestamp(3600)",
        "timestamp(10) - duration('3s') == timestamp(7) && timestamp(10) - timestamp(3) == duration('7s')",
        "duration('1h30m') == duration('90m') && duration('-1.5s') == duration('-1500ms') && duration('0') == duration('0s')",
        "duration('1m') - duration('1s') == duration('59s') && duration('1us') == duration('1000ns')",
        "string(duration('90m')) == '5400s' && string(duration('1.5s')) == '1.5s' && int(duration('1s')) == 1000000000",
        "string(timestamp('2009-02-13T23:31:30.5Z')) == '2009-02-13T23:31:30.5Z'",
        "duration('10h').getHours() == 10 && duration('90m').getMinutes() == 90 && duration('1m').getSeconds() == 60",
        "duration('1.234s').getMilliseconds() == 1234",
        "timestamp('2009-02-13T23:31:30.123Z').getMilliseconds() == 123",
        "timestamp('2009-02-13T23:31:30Z').getFullYear() == 2009 && timestamp('2009-02-13T23:31:30Z').getMonth() == 1",
        "timestamp('2009-02-13T23:31:30Z').getDate() == 13 && timestamp('2009-02-13T23:31:30Z').getDayOfMonth() == 12",
        "timestamp('2009-02-13T23:31:30Z').getDayOfYear() == 43 && timestamp('2009-02-13T23:31:30Z').getDayOfWeek() == 5",
        "timestamp('2009-02-13T23:31:30Z').getHours() == 23 && timestamp('2009-02-13T23:31:30Z').getMinutes() == 31",
        "timestamp('2009-02-13T23:31:30Z').getSeconds() == 30",
        "timestamp('2009-02-13T23:31:30Z').getDate('Australia/Sydney') == 14",
        "timestamp('2009-02-13T23:31:30Z').getHours('-02:30') == 21 && timestamp(0).getMinutes('05:45') == 45",
        "timestamp('9999-12-31T23:59:59Z') > timestamp('0001-01-01T00:00:00Z')",
    ]);
    gives(&[
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "! timestamp overflow"),
        ("timestamp('0001-01-01T00:00:00Z') - duration('1ns')", "! timestamp overflow"),
        ("timestamp('9999-12-31T23:59:59Z') - timestamp('0001-01-01T00:00:00Z')", "! duration overflow"),
        ("duration('2562047h') + duration('2562047h')", "! duration overflow"),
        ("duration('1')", "? invalid duration argument"),
        ("duration('99999999h')", "? invalid duration argument"),
        ("timestamp('2009-02-13')", "? invalid timestamp argument"),
        ("timestamp('2009-02-30T00:00:00Z')", "? invalid timestamp argument"),
        ("timestamp(0).getHours('Nowhere/City')", "! unknown time zone Nowhere/City"),
    ]);
}

#[test]
fn macros() {
    holds(&[
        "[1, 2].all(x, x > 0) && ![1, 2].all(x, x > 1) && [].all(x, false)",
        "[1, 2].exists(x, x > 1) && ![].exists(x, true) && {'a': 1}.exists(k, k == 'a')",
        "[1, 2, 2].exists_one(x, x == 1) && ![1, 2, 2].existsOne(x, x == 2)",
        "[1, 2].map(x, x * 2) == [2, 4] && [1, 2, 3].map(x, x > 1, x * x) == [4, 9] && {'a': 1}.map(k, k) == ['a']",
        "[1, 2, 3].filter(x, x % 2 == 1) == [1, 3] && {'a': 1, 'b': 2}.filter(k, k == 'b') == ['b']",
        "[[1], [2, 3]].all(l, l.all(x, [1, 2, 3].exists(y, x == y)))",
        // With two variables: index and element, or key and value.
        "[5, 6].all(i, v, v == i + 5) && {'a': 1}.exists(k, v, k == 'a' && v == 1) && [1, 1].existsOne(i, v, i == v)",
        "[1, 2].transformList(i, v, i * v) == [0, 2] && [1, 2].transformList(i, v, i > 0, v) == [2]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && [3].transformMap(i, v, v) == {0: 3}",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        // The inner variable hides the outer one.
        "[1].all(x, [2].all(x, x == 2) && x == 1)",
    ]);
    gives(&[
        ("[1].all(1, true)", "? argument must be a simple name"),
        ("[1].map(a.b, 1)", "? argument is not an identifier"),
        ("[1].all(x, x, true)", "? duplicate variable name: x"),
        ("[1].all(x, 1)", "? expected type 'bool' but found 'int'"),
        ("[1].filter(x, 1)", "? found no matching overload for '_?_:_' applied to '(int, list(int), list(int))'"),
        (
            "'a'.all(x, true)",
            "? expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("has(1)", "? invalid argument to has() macro"),
        ("[1, 1].transformMapEntry(i, v, {v: i})", "! insert failed: key 1 already exists"),
        ("dyn(1).all(x, true)", "! got 'int', expected iterable type"),
    ]);
}

#[test]
fn optional_values() {
    holds(&[
        "{'a': 1}.?a.value() == 1 && !{'a': 1}.?b.hasValue() && {'a': 1}.?b.orValue(2) == 2",
        "[1][?0] == optional.of(1) && [1][?5] == optional.none() && {'a': 1}[?'b'].orValue(3) == 3",
        "optional.of({'a': {'b': 1}}).a.b.value() == 1 && {'a': {}}.?a.?b.?c == optional.none()",
        "optional.none().or(optional.of(1)).value() == 1 && optional.of(1).or(optional.of(2)).value() == 1",
        // What is not wanted is not evaluated.
        "optional.of(1).orValue(1 / 0) == 1",
        "optional.of(2).optMap(x, x * 2).value() == 4 && !optional.none().optMap(x, x).hasValue()",
        "{'a': {'b': 1}}.?a.optFlatMap(x, x.?b).value() == 1",
        "optional.ofNonZeroValue('') == optional.none() && optional.ofNonZeroValue(1).hasValue()",
        "[?optional.none(), ?optional.of(1)] == [1] && {?'a': optional.none(), 'b': 2} == {'b': 2}",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()",
        "[optional.of(1), optional.none()].unwrapOpt() == [1] && optional.unwrap([optional.of(2)]) == [2]",
        "has(optional.of({'a': 1}).a)",
    ]);
    gives(&[
        ("optional.none().value()", "! optional.none() dereference"),
        ("1.orValue(2)", "? found no matching overload for 'orValue' applied to 'int.(int)'"),
        ("[?1]", "? expected type 'optional_type(int)' but found 'int'"),
    ]);
}

#[test]
fn faults_are_shown_where_they_are() {
    let env = Env::new().variable("self", Type::map(Type::String, Type::Int));
    let shown = |source: &str| env.compile(source).unwrap_err().to_string();
    assert_eq!(
        shown("self.a ==\n  'é' + foo"),
        "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.a ==\n | .......^\n\
         ERROR: <input>:2:9: undeclared reference to 'foo' (in container '')\n |   'é' + foo\n | ...\u{ff0e}....^"
    );
    assert_eq!(
        shown("self.a.b"),
        "ERROR: <input>:1:7: type 'int' does not support field selection\n | self.a.b\n | ......^"
    );
    assert_eq!(
        shown("size(self) > 'a'"),
        "ERROR: <input>:1:12: found no matching overload for '_>_' applied to '(int, string)'\n | size(self) > 'a'\n | ...........^"
    );
    let long = "1 + ".repeat(usize::from(DEPTH_MAX)) + "1";
    assert_eq!(shown(&long), "ERROR: <input>:-1:0: expression recursion limit exceeded: 250");
}

#[test]
fn data_of_which_nothing_is_known_is_what_it_is() {
    let env = Env::new().variable("object", Type::Dyn).variable("oldObject", Type::Dyn).variable("params", Type::Dyn);
    let object = json!({"kind": "Pod", "spec": {"replicas": 3, "ratio": 0.5, "big": u64::MAX, "list": [1, "a", null],
        "x-y": {"z": true}}});
    let variables = [Some(read_any(&object)), Some(Value::Null), None];
    for source in [
        "object.kind == 'Pod' && object.spec.replicas == 3 && object.spec.ratio < 1.0",
        "object.spec.big == 18446744073709551615u && object.spec.list[1] == 'a' && object.spec.list[2] == null",
        "object.spec['x-y'].z && has(object.spec.list) && !has(object.spec.none) && 'ratio' in object.spec",
        "oldObject == null && object.?spec.?none.orValue('x') == 'x' && object.spec.all(k, k != '')",
        "object == object && object.spec.list.filter(x, type(x) == int) == [1]",
        "true || params.x == 1",
    ] {
        assert_eq!(with(&env, source, &variables), "true", "{source}");
    }
    assert_eq!(with(&env, "params.x == 1", &variables), "! no such attribute(s)");
    assert_eq!(with(&env, "object.spec.replicas + object.kind", &variables), "! no such overload");
    assert_eq!(with(&env, "object.kind.x", &variables), "! no such key: x");
}

#[test]
fn the_cost_limit_stops_whatever_it_is() {
    for source in [
        "lists.range(1000).all(x, lists.range(1000).all(y, x >= 0 && y >= 0))",
        // Nothing absorbs it.
        "true || lists.range(1000).all(x, lists.range(1000).all(y, x >= 0))",
        "lists.range(500000).map(x, x).size() == 0 || true",
    ] {
        let program = Env::new().compile(source).unwrap();
        let evaluation = program.evaluate(&[], 100_000);
        if !source.starts_with("true") {
            assert_eq!(evaluation.outcome.unwrap_err(), Fault::Exhausted, "{source}");
        }
    }
    // What the cost does not see is bounded all the same: texts that grow without it.
    let long = "x".repeat(40_000);
    let replaced = format!("'{long}'.replace('x', '{long}').size() > 0");
    assert_eq!(outcome(&replaced), "! operation cancelled: actual cost limit exceeded");
}

/// The deepest expressions, in three quarters of the stack that a thread of a server has.
#[test]
fn the_deepest_expressions_fit_a_threads_stack() {
    let depth = usize::from(DEPTH_MAX) - 2;
    let sources = [
        format!("{}1{}", "(".repeat(depth), ")".repeat(depth)),
        format!("{}1{} != []", "[".repeat(depth - 2), "]".repeat(depth - 2)),
        format!("{}1", "1 + ".repeat(depth)),
        format!("{}1{}", "size([".repeat(depth / 2 - 2), "])".repeat(depth / 2 - 2)),
        format!("{}true{}", "[1].all(x, ".repeat(depth / 2), ")".repeat(depth / 2)),
        format!("{}1", "true ? 1 : ".repeat(depth)),
        format!("{}true", "!(".repeat(depth / 2)) + &")".repeat(depth / 2),
    ];
    let work = move || {
        for source in &sources {
            assert!(!outcome(source).starts_with('?'), "{}", outcome(source));
        }
        for deeper in ["(", "[", "{1: ", "!(", "f(", "1 + (", "true ? 1 : (", "a.b(", "a["] {
            assert!(parse(&deeper.repeat(100_000 / deeper.len())).is_err());
        }
    };
    std::thread::Builder::new().stack_size(3 << 19).spawn(work).unwrap().join().unwrap();
}

/// Texts that are expressions, or nearly.
fn sources() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("x"),
        Just("self"),
        Just("1"),
        Just("-9223372036854775808"),
        Just("2u"),
        Just("1.5"),
        Just("'é'"),
        Just("b'a'"),
        Just("null"),
        Just("true"),
        Just("[]"),
        Just("{}"),
        Just("int"),
        Just("duration('1s')"),
        Just("optional.none()"),
        Just("timestamp(0)"),
        Just("self.list"),
        Just("self.map"),
        Just("''"),
        Just("quantity('1')"),
    ];
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 3, |inner| {
        let binary = prop_oneof![
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("=="),
            Just("!="),
            Just("<"),
            Just(">="),
            Just("in"),
            Just("&&"),
            Just("||"),
        ];
        let name = prop_oneof![
            Just("size"),
            Just("int"),
            Just("string"),
            Just("type"),
            Just("dyn"),
            Just("double"),
            Just("uint"),
            Just("optional.of"),
        ];
        let one = prop_oneof![
            Just("contains"),
            Just("matches"),
            Just("split"),
            Just("indexOf"),
            Just("format"),
            Just("join"),
            Just("find"),
            Just("orValue"),
            Just("charAt"),
            Just("substring"),
            Just("add"),
            Just("flatten"),
        ];
        let none = prop_oneof![
            Just("size"),
            Just("sort"),
            Just("distinct"),
            Just("sum"),
            Just("min"),
            Just("isSorted"),
            Just("trim"),
            Just("value"),
            Just("reverse"),
            Just("getHours"),
            Just("first"),
        ];
        let folds = prop_oneof![
            Just("all"),
            Just("exists"),
            Just("exists_one"),
            Just("map"),
            Just("filter"),
            Just("optMap"),
            Just("sortBy"),
        ];
        let two = prop_oneof![Just("all"), Just("transformList"), Just("transformMap"), Just("transformMapEntry")];
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (name, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), one, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
            (inner.clone(), none).prop_map(|(a, f)| format!("{a}.{f}()")),
            (inner.clone(), folds, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}(x, {b})")),
            (inner.clone(), two, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}(k, x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[?{b}]")),
            inner.clone().prop_map(|a| format!("{a}.field")),
            inner.clone().prop_map(|a| format!("{a}.?field")),
            inner.clone().prop_map(|a| format!("has({a}.field)")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

/// Everything `dyn`, so that what checking would refuse is evaluated.
fn loose() -> Env {
    Env::new().variable("self", Type::Dyn).variable("x", Type::Dyn)
}

const PROPERTY_COST: u64 = 20_000;

proptest! {
    #[test]
    fn what_is_printed_reads_back(source in sources()) {
        let expr: Expr = parse(&source).unwrap();
        let printed = expr.to_string();
        prop_assert_eq!(parse(&printed).map(|again| again == expr), Ok(true), "{}", printed);
    }

    #[test]
    fn any_text_is_an_expression_or_a_fault(source in ".{0,60}") {
        if let Ok(expr) = parse(&source) {
            prop_assert_eq!(parse(&expr.to_string()).map(|again| again == expr), Ok(true));
        }
    }

    #[test]
    fn no_evaluation_panics_or_costs_more_than_its_limit(source in sources()) {
        let object = json!({"list": [1, "a", null, [2], {"field": 3}], "map": {"field": "é", "b": 2}, "field": true});
        if let Ok(program) = loose().compile(&source) {
            let variables = [Some(read_any(&object)), Some(Value::text("x"))];
            let evaluation = program.evaluate(&variables, PROPERTY_COST);
            let exhausted = matches!(evaluation.outcome, Err(Fault::Exhausted));
            prop_assert!(exhausted || evaluation.cost <= PROPERTY_COST);
            // Twice the same.
            let again = program.evaluate(&variables, PROPERTY_COST);
            prop_assert_eq!(again.cost, evaluation.cost);
            if let Ok(value) = evaluation.outcome {
                let _ = value.to_string();
            }
        }
    }
}
