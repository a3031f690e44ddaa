//! Conversions, each under the name of the type that comes of it.

use super::Sig::*;
use super::time::Moment;
use super::{CIDR, Function, IP, arith, call, number, time};
use crate::cel::price::Price;
use crate::cel::value::{Outcome, Value, no_such_overload, raise};

/// 2^63 and 2^64, which no integer of ours reaches.
const INT_END: f64 = 9_223_372_036_854_775_808.0;
const UINT_END: f64 = 18_446_744_073_709_551_616.0;

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "type",
        overloads: &[call(&[A], TypeOf(&A))],
        price: Price::Nominal,
        run: |_, args| match args {
            [value] => Ok(Value::Type(value.type_name().to_owned().into())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "dyn",
        overloads: &[call(&[A], Dyn)],
        price: Price::Nominal,
        run: |_, args| args.first().cloned().map_or_else(no_such_overload, Ok),
    },
    Function {
        name: "bool",
        overloads: &[call(&[Bool], Bool), call(&[String], Bool)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ Value::Bool(_)] => Ok(value.clone()),
            [Value::String(text)] => match &**text {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
                _ => unfit("string", "bool"),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "bytes",
        overloads: &[call(&[Bytes], Bytes), call(&[String], Bytes)],
        price: Price::Scan,
        run: |meter, args| match args {
            [value @ Value::Bytes(_)] => Ok(value.clone()),
            [Value::String(text)] => {
                meter.work(text.len() as u64)?;
                Ok(Value::Bytes(text.as_bytes().into()))
            }
            _ => no_such_overload(),
        },
    },
    Function {
        name: "double",
        overloads: &[call(&[Double], Double), call(&[Int], Double), call(&[String], Double), call(&[Uint], Double)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ Value::Double(_)] => Ok(value.clone()),
            [Value::Int(number)] => Ok(Value::Double(*number as f64)),
            [Value::Uint(number)] => Ok(Value::Double(*number as f64)),
            [Value::String(text)] => match number::parse_float(text) {
                Some(number) => Ok(Value::Double(number)),
                None => unfit("string", "double"),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "int",
        overloads: &[
            call(&[Int], Int),
            call(&[Double], Int),
            call(&[Duration], Int),
            call(&[String], Int),
            call(&[Timestamp], Int),
            call(&[Uint], Int),
        ],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ Value::Int(_)] => Ok(value.clone()),
            [Value::Double(number)] => arith::int((*number > -INT_END && *number < INT_END).then_some(*number as i64)),
            [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
            [Value::Timestamp(at)] => Ok(Value::Int(at.seconds)),
            [Value::Uint(number)] => arith::int(i64::try_from(*number).ok()),
            [Value::String(text)] => text.parse().map_or_else(|_| unfit("string", "int"), |n| Ok(Value::Int(n))),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "uint",
        overloads: &[call(&[Uint], Uint), call(&[Double], Uint), call(&[Int], Uint), call(&[String], Uint)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ Value::Uint(_)] => Ok(value.clone()),
            [Value::Double(number)] => arith::uint((*number >= 0.0 && *number < UINT_END).then_some(*number as u64)),
            [Value::Int(number)] => arith::uint(u64::try_from(*number).ok()),
            // Rust takes a sign here, and Go does not.
            [Value::String(text)] if !text.starts_with('+') => {
                text.parse().map_or_else(|_| unfit("string", "uint"), |n| Ok(Value::Uint(n)))
            }
            [Value::String(_)] => unfit("string", "uint"),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "string",
        overloads: &[
            call(&[String], String),
            call(&[Bool], String),
            call(&[Bytes], String),
            call(&[Double], String),
            call(&[Duration], String),
            call(&[Int], String),
            call(&[Timestamp], String),
            call(&[Uint], String),
            call(&[IP], String),
            call(&[CIDR], String),
        ],
        price: Price::Decode,
        run: |meter, args| match args {
            [value @ Value::String(_)] => Ok(value.clone()),
            [value] => {
                meter.work(value.size())?;
                text(value)
            }
            _ => no_such_overload(),
        },
    },
    Function {
        name: "duration",
        overloads: &[call(&[Duration], Duration), call(&[String], Duration)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ Value::Duration(_)] => Ok(value.clone()),
            [Value::String(text)] => match time::parse_duration(text) {
                Some(nanos) => Ok(Value::Duration(nanos)),
                None => unfit("string", "google.protobuf.Duration"),
            },
            _ => no_such_overload(),
        },
    },
    Function {
        name: "timestamp",
        overloads: &[call(&[Timestamp], Timestamp), call(&[Int], Timestamp), call(&[String], Timestamp)],
        price: Price::Nominal,
        run: |_, args| match args {
            [value @ Value::Timestamp(_)] => Ok(value.clone()),
            [Value::Int(seconds)] => time::moment(Moment::of_nanos(i128::from(*seconds) * time::SECOND)),
            [Value::String(text)] => match time::parse_timestamp(text) {
                Some(at) => time::moment(at.within()),
                None => unfit("string", "google.protobuf.Timestamp"),
            },
            _ => no_such_overload(),
        },
    },
];

fn unfit<'a>(from: &str, to: &str) -> Outcome<'a> {
    raise(format!("type conversion error from '{from}' to '{to}'"))
}

/// What `string(x)` says.
pub fn text<'a>(value: &Value<'a>) -> Outcome<'a> {
    Ok(match value {
        Value::String(_) => value.clone(),
        Value::Bool(value) => Value::borrowed(if *value { "true" } else { "false" }),
        Value::Int(number) => Value::text(number.to_string()),
        Value::Uint(number) => Value::text(number.to_string()),
        Value::Double(number) => Value::text(number::shortest(*number)),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return raise("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Duration(nanos) => Value::text(time::duration_text(*nanos)),
        Value::Timestamp(at) => Value::text(time::timestamp_text(*at)),
        Value::Ip(address) => Value::text(address.to_string()),
        Value::Cidr(net) => Value::text(net.to_string()),
        Value::Type(name) => Value::text(name.to_string()),
        _ => return no_such_overload(),
    })
}
