//! The libraries, by tables of what their documentation says.

use crate::cel::tests::{gives, holds};

#[test]
fn strings() {
    holds(&[
        "'hello'.charAt(4) == 'o' && 'hello'.charAt(5) == '' && 'héllo'.charAt(1) == 'é'",
        "'hello mellow'.indexOf('') == 0 && 'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('jello') == -1",
        "'hello mellow'.indexOf('', 2) == 2 && 'hello mellow'.indexOf('ello', 2) == 7 && 'hello mellow'.indexOf('ello', 20) == -1",
        "'ééa'.indexOf('a') == 2 && 'ééaé'.lastIndexOf('é') == 3 && 'ééaé'.lastIndexOf('é', 2) == 1",
        "'hello mellow'.lastIndexOf('') == 12 && 'hello mellow'.lastIndexOf('ello') == 7",
        "'hello mellow'.lastIndexOf('jello') == -1 && 'hello mellow'.lastIndexOf('ello', 6) == 1",
        "'hello mellow'.lastIndexOf('ello', 20) == -1 && 'ab'.lastIndexOf('', 9) == 2",
        "'TacoCÆt'.lowerAscii() == 'tacocÆt' && 'TacoCæt'.upperAscii() == 'TACOCæT'",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello'",
        "'hello hello'.replace('he', 'we', 0) == 'hello hello' && 'hello hello'.replace('he', 'we', -1) == 'wello wello'",
        "'ab'.replace('', '_') == '_a_b_'",
        "'a b c'.split(' ') == ['a', 'b', 'c'] && 'a b c'.split(' ', 0) == [] && 'a b c'.split(' ', 1) == ['a b c']",
        "'a b c'.split(' ', 2) == ['a', 'b c'] && 'a b c'.split(' ', -1) == ['a', 'b', 'c']",
        "'aéb'.split('') == ['a', 'é', 'b'] && 'abc'.split('', 2) == ['a', 'bc'] && ''.split('') == [] && ''.split(',') == ['']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'ta©o©αT'.substring(2, 6) == '©o©α'",
        "'  \\ttrim\\n    '.trim() == 'trim' && '\\u00a0x\\u2003'.trim() == 'x'",
        "['x', 'y'].join() == 'xy' && ['x', 'y'].join('-') == 'x-y' && [].join('/') == ''",
        r#"strings.quote('single-quote with "double quote"') == '"single-quote with \\"double quote\\""'"#,
        r#"strings.quote("two escape sequences \a\n") == '"two escape sequences \\a\\n"'"#,
    ]);
    gives(&[
        ("'hello'.charAt(-1)", "! index out of range: -1"),
        ("'hello'.charAt(6)", "! index out of range: 6"),
        ("'hello'.indexOf('l', -1)", "! index out of range: -1"),
        ("'tacocat'.substring(-1)", "! index out of range: -1"),
        ("'tacocat'.substring(2, 1)", "! invalid substring range. start: 2, end: 1"),
        ("'tacocat'.substring(0, 8)", "! index out of range: 8"),
        ("[1].join()", "? found no matching overload for 'join' applied to 'list(int).()'"),
        ("[dyn(1)].join()", "! join: invalid input: 1"),
    ]);
}

#[test]
fn formats() {
    gives(&[
        (
            "'this is a string: %s\\nand an integer: %d'.format(['str', 42])",
            "this is a string: str\nand an integer: 42",
        ),
        ("'a double substituted with %%s: %s'.format([64.2])", "a double substituted with %s: 64.2"),
        ("'%s'.format([timestamp('2023-02-03T23:31:20+00:00')])", "2023-02-03T23:31:20Z"),
        ("'%s'.format([duration('1h45m47s')])", "6347s"),
        ("'%f'.format([3.14])", "3.140000"),
        ("'%.3f'.format([1234567.8])", "1,234,567.800"),
        ("'%e'.format([2.71828])", "2.718280\u{d7}10\u{2070}\u{2070}"),
        ("'%.1e'.format([-0.000123])", "-1.2\u{d7}10\u{207b}\u{2070}\u{2074}"),
        ("'%b %b %b'.format([5, -5, true])", "101 -101 1"),
        ("'%x %X %x'.format([26, 26u, 'hi'])", "1a 1A 6869"),
        ("'%o'.format([30])", "36"),
        (
            "'%s'.format([[1, 2.5, 'a', null, {'b': b'x', 'a': true}]])",
            "[1, 2.500000, \"a\", null, {\"a\":true, \"b\":b\"x\"}]",
        ),
        ("'%s %s'.format([type(1), null])", "int null"),
        ("'%s'.format([[duration('1s')]])", "[duration(\"1s\")]"),
        ("'%f %f'.format(['NaN', '-Infinity'])", "NaN -\u{221e}"),
        (
            "'%d'.format(['a'])",
            "? error during formatting: decimal clause can only be used on integers, was given string",
        ),
        (
            "'%d'.format([dyn('a')])",
            "! error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%d %d'.format([1])", "? index 1 out of range"),
        ("'%d'.format([1, 2])", "? too many arguments supplied to string.format (expected 1, got 2)"),
        ("'%q'.format([1])", "? could not parse formatting clause: unrecognized formatting clause \"q\""),
        ("'%'.format([1])", "? unexpected end of string"),
    ]);
}

#[test]
fn lists() {
    holds(&[
        "[1, 2, 2, 3].isSorted() && !['b', 'a'].isSorted() && [2.0, 2.0].isSorted() && [].isSorted()",
        "[1, 3].sum() == 4 && [1.0, 3.0].sum() == 4.0 && [].sum() == 0 && [duration('1m'), duration('1s')].sum() == duration('61s')",
        "[1, 3].min() == 1 && [1, 3].max() == 3 && ['a', 'b'].max() == 'b' && [true, false].min() == false",
        "[1, 2, 2, 3].indexOf(2) == 1 && ['a', 'b', 'b', 'c'].lastIndexOf('b') == 2 && [1.0].indexOf(1.1) == -1 && [].indexOf('x') == -1",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [1].slice(1, 1) == []",
        "[[1, 2], [3]].flatten() == [1, 2, 3] && [dyn(1), dyn([dyn(2), dyn([3])])].flatten() == [dyn(1), dyn(2), dyn([3])]",
        "[dyn(1), dyn([dyn(2), dyn([dyn(3), dyn([4])])])].flatten(2) == [dyn(1), dyn(2), dyn(3), dyn([4])]",
        "[3, 2, 1].sort() == [1, 2, 3] && ['b', 'c', 'a'].sort() == ['a', 'b', 'c']",
        "lists.range(3) == [0, 1, 2] && lists.range(0) == [] && [1, 2].reverse() == [2, 1]",
        "[1, 2, 2, 3, 1].distinct() == [1, 2, 3] && [dyn(1), dyn(1.0), dyn('a')].distinct() == [dyn(1), dyn('a')]",
        "['bb', 'a'].sortBy(e, e.size()) == ['a', 'bb']",
        "sets.contains([1, 2], [2]) && sets.contains([], []) && !sets.contains([1], [2])",
        "sets.equivalent([1, 1], [1]) && sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], [])",
    ]);
    gives(&[
        ("[].min()", "! min called on empty list"),
        ("[1].slice(0, 2)", "! cannot slice(0, 2), list is length 1"),
        ("[1].slice(-1, 0)", "! cannot slice(-1, 0), negative indexes not supported"),
        ("[1].slice(1, 0)", "! cannot slice(1, 0), start index must be less than or equal to end index"),
        ("[1].flatten()", "? found no matching overload for 'flatten' applied to 'list(int).()'"),
        ("[dyn(1), dyn('a')].sort()", "! list elements must have the same type"),
        ("lists.range(100000000)", "! operation cancelled: actual cost limit exceeded"),
    ]);
}

#[test]
fn patterns() {
    holds(&[
        "'abc 123'.find('[0-9]+') == '123' && 'abc 123'.find('xyz') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456'] && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "'123 abc 456'.findAll('xyz') == [] && 'ab'.findAll('') == ['', '', ''] && 'baac'.findAll('a*') == ['', 'aa', '']",
        r"'٣'.matches(r'\d') == false && 'é'.find('.') == 'é'",
        "['a', 'b'].exists(p, 'xbx'.matches(p))",
    ]);
    gives(&[
        ("'a'.find(dyn('('))", "! error parsing regexp: unclosed group: `(`"),
        ("'a'.find('(')", "? invalid matches argument"),
    ]);
}

#[test]
fn urls() {
    holds(&[
        "isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path')",
        "!isURL('https://a:b:c/') && !isURL('../relative-path') && !isURL('') && !isURL('https://a b/') && !isURL('/%zz')",
        "url('/path').getScheme() == '' && url('https://example.com/').getScheme() == 'https'",
        "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://example.com/').getHost() == 'example.com'",
        "url('https://[::1]:80/').getHost() == '[::1]:80' && url('https://[::1]/').getHost() == '[::1]' && url('/path').getHost() == ''",
        "url('https://example.com:80/').getHostname() == 'example.com' && url('https://127.0.0.1:80/').getHostname() == '127.0.0.1'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('/path').getHostname() == ''",
        "url('https://example.com:80/').getPort() == '80' && url('https://example.com/').getPort() == ''",
        "url('https://example.com/path').getEscapedPath() == '/path' && url('https://example.com').getEscapedPath() == ''",
        "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
        "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
        "url('https://example.com/path?key with spaces=value with spaces').getQuery() == {'key with spaces': ['value with spaces']}",
        "url('https://example.com/path?').getQuery() == {} && url('https://example.com/path').getQuery() == {}",
        "url('https://example.com/') == url('https://example.com/') && url('/a') != url('/b')",
    ]);
    gives(&[(
        "url('../a')",
        "! URL parse error during conversion from string: parse \"../a\": invalid URI for request",
    )]);
}

#[test]
fn quantities() {
    holds(&[
        "isQuantity('1.3G') && isQuantity('1.3Gi') && !isQuantity('1,3G') && isQuantity('10000k') && !isQuantity('200K')",
        "!isQuantity('Three') && !isQuantity('Mi')",
        "quantity('50000000G').isInteger() && quantity('50k').isInteger() && !quantity('9999999999999999999999999999999999999G').isInteger()",
        "quantity('50k').asInteger() == 50000 && quantity('50k').sub(20000).asApproximateFloat() == 30000.0",
        "quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').add(20) == quantity('50020')",
        "quantity('50k').sub(quantity('20k')) == quantity('30k') && quantity('50k').sub(20000) == quantity('30k')",
        "quantity('50k').add(20).sub(quantity('100k')).sub(-50000) == quantity('20')",
        "quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('50M').compareTo(quantity('50Mi')) == -1",
        "quantity('150Mi').isGreaterThan(quantity('100Mi')) && quantity('50M').isLessThan(quantity('100M'))",
        "sign(quantity('-1')) == -1 && sign(quantity('0')) == 0 && sign(quantity('5m')) == 1",
    ]);
    gives(&[
        ("quantity('200K')", "! unable to parse quantity's suffix"),
        ("quantity('9999999999999999999999999999999999999G').asInteger()", "! cannot convert value to integer"),
    ]);
}

#[test]
fn addresses() {
    holds(&[
        "isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256') && !isIP(':::1') && !isIP('01.2.3.4')",
        "!isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
        "ip.isCanonical('127.0.0.1') && ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
        "!ip.isCanonical('2001:db8::0:0:0:abcd')",
        "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6 && string(ip('::1')) == '::1'",
        "ip('0.0.0.0').isUnspecified() && !ip('127.0.0.1').isUnspecified() && ip('::').isUnspecified()",
        "ip('127.0.0.1').isLoopback() && !ip('192.168.0.1').isLoopback() && ip('::1').isLoopback()",
        "ip('224.0.0.1').isLinkLocalMulticast() && !ip('224.0.1.1').isLinkLocalMulticast()",
        "ip('ff02::1').isLinkLocalMulticast() && !ip('fd00::1').isLinkLocalMulticast()",
        "ip('169.254.169.254').isLinkLocalUnicast() && !ip('192.168.0.1').isLinkLocalUnicast()",
        "ip('fe80::1').isLinkLocalUnicast() && !ip('fd80::1').isLinkLocalUnicast()",
        "ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()",
        "ip('2001:db8::abcd').isGlobalUnicast() && !ip('ff00::1').isGlobalUnicast()",
        "isCIDR('192.168.0.0/16') && isCIDR('::1/128') && !isCIDR('192.168.0.0/33') && !isCIDR('::1/129') && !isCIDR('1.2.3.4')",
        "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1')) && !cidr('192.168.0.0/24').containsIP('192.168.1.1')",
        "cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24')) && !cidr('192.168.1.0/24').containsCIDR('192.168.2.0/24')",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && cidr('::1/128').ip().family() == 6",
        "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24') && cidr('192.168.0.1/24') != cidr('192.168.0.1/24').masked()",
        "cidr('192.168.0.0/16').prefixLength() == 16 && string(cidr('::1/128')) == '::1/128'",
    ]);
    gives(&[
        ("ip('::ffff:1.2.3.4')", "! IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed"),
        ("ip('fe80::1%eth0')", "! IP address \"fe80::1%eth0\" with zone value is not allowed"),
    ]);
}

#[test]
fn versions() {
    holds(&[
        "isSemver('1.0.0') && isSemver('0.1.0-alpha.1+build.5') && !isSemver('v1.0') && !isSemver('01.2.3') && !isSemver('')",
        "isSemver('v1.0', true) && isSemver('01.02.3', true) && semver('v1', true) == semver('1.0.0')",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "semver('1.2.3').compareTo(semver('2.0.0')) == -1 && semver('1.2.3').compareTo(semver('1.2.3')) == 0",
        "semver('1.0.0').isGreaterThan(semver('1.0.0-rc.1')) && semver('1.0.0-alpha.2').isLessThan(semver('1.0.0-alpha.10'))",
        "semver('1.0.0-1').isLessThan(semver('1.0.0-a')) && semver('1.0.0+a') == semver('1.0.0+b')",
    ]);
    gives(&[("semver('1.2')", "! No Major.Minor.Patch elements found")]);
}

#[test]
fn named_formats() {
    holds(&[
        "!format.named('dns1123Label').value().validate('my-label').hasValue()",
        "format.dns1123Label().validate('-my').value()[0].startsWith('a lowercase RFC 1123 label must consist of')",
        "format.named('none') == optional.none() && format.named('uuid').value() == format.uuid()",
        "!format.dns1123SubdomainPrefix().validate('a.b-').hasValue() && format.dns1035Label().validate('1a').hasValue()",
        "!format.qualifiedName().validate('example.com/name').hasValue() && !format.labelValue().validate('').hasValue()",
        "!format.uri().validate('https://a/b').hasValue() && format.uri().validate('a').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.uuid().validate('1').hasValue()",
        "!format.byte().validate('aGk=').hasValue() && format.byte().validate('a').value() == ['invalid base64']",
        "!format.date().validate('2026-01-02').hasValue() && format.date().validate('2026-13-02').hasValue()",
        "!format.datetime().validate('2026-01-02T03:04:05Z').hasValue() && format.datetime().validate('x').hasValue()",
    ]);
}
