//! str() and repr() as Python writes them: `{{ true }}` prints True, a list prints its repr.

use std::fmt::{self, Write};

use minijinja::value::ValueKind;
use minijinja::Value;

const DEPTH_MAX: usize = 64;

/// repr(float): shortest digits that read back; the exponent has a sign and at least two digits.
pub fn float_repr(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    let text = format!("{f:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    format!("{digits}e{sign}{exponent:0>2}")
}

/// str.isprintable of one character, by Rust's own table; the letter before it keeps combining
/// marks printable.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    !c.is_whitespace() && ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// repr(str): single quotes unless only those occur inside; control characters escaped.
fn string_repr(out: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if is_printable(c) => out.write_char(c)?,
            c if c <= '\u{ff}' => write!(out, "\\x{:02x}", c as u32)?,
            c if c <= '\u{ffff}' => write!(out, "\\u{:04x}", c as u32)?,
            c => write!(out, "\\U{:08x}", c as u32)?,
        }
    }
    out.write_char(quote)
}

fn sequence_repr(out: &mut dyn Write, value: &Value, depth: usize) -> fmt::Result {
    let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
    let mut n = 0;
    out.write_char(open)?;
    for item in value.try_iter().map_err(|_| fmt::Error)?.checked() {
        if n > 0 {
            out.write_str(", ")?;
        }
        repr(out, &item.map_err(|_| fmt::Error)?, depth + 1)?;
        n += 1;
    }
    if value.is_tuple() && n == 1 {
        out.write_char(',')?;
    }
    out.write_char(close)
}

fn map_repr(out: &mut dyn Write, value: &Value, depth: usize) -> fmt::Result {
    out.write_char('{')?;
    for (i, key) in value.try_iter().map_err(|_| fmt::Error)?.checked().enumerate() {
        let key = key.map_err(|_| fmt::Error)?;
        if i > 0 {
            out.write_str(", ")?;
        }
        repr(out, &key, depth + 1)?;
        out.write_str(": ")?;
        repr(out, &value.get_item(&key).map_err(|_| fmt::Error)?, depth + 1)?;
    }
    out.write_char('}')
}

fn repr(out: &mut dyn Write, value: &Value, depth: usize) -> fmt::Result {
    if depth > DEPTH_MAX {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::String => string_repr(out, value.as_str().unwrap_or("")),
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::Seq => sequence_repr(out, value, depth),
        ValueKind::Map if value.as_object().is_some() => map_repr(out, value, depth),
        _ => str_of(out, value),
    }
}

/// str(value) into out; strings themselves, containers as repr.
pub fn str_of(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if !value.is_integer() => {
            out.write_str(&float_repr(f64::try_from(value.clone()).unwrap_or(f64::NAN)))
        }
        ValueKind::Seq | ValueKind::Map => repr(out, value, 0),
        ValueKind::String => out.write_str(value.as_str().unwrap_or("")),
        ValueKind::Undefined => Ok(()),
        _ => write!(out, "{value}"),
    }
}
