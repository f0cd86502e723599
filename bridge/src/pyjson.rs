//! json.dumps as Python writes it, over template values: the `tojson` filter of chat templates.

use minijinja::value::{from_args, Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value};

use crate::pyformat::float_repr;

const DEPTH_MAX: usize = 128;

struct Style {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// Writes into a string and pays for it in fuel as it grows, so that shared parts cannot multiply
/// without limit.
struct Writer<'a, 'b, 'c> {
    out: String,
    paid: usize,
    style: &'a Style,
    state: &'a State<'b, 'c>,
}

fn fail(text: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

impl Writer<'_, '_, '_> {
    /// A quarter of a unit per byte, as the engine charges for serializing.
    fn pay(&mut self) -> Result<(), Error> {
        const STEP: usize = 256;
        let steps = (self.out.len() - self.paid) / STEP;
        if steps > 0 {
            self.paid += steps * STEP;
            self.state.consume_fuel((steps * STEP / 4) as u64)?;
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' => self.unit(c as u16),
                c if self.style.ascii && !(' '..='~').contains(&c) => {
                    let mut units = [0u16; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.unit(*unit);
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
        self.pay()
    }

    fn unit(&mut self, unit: u16) {
        self.out.push_str(&format!("\\u{unit:04x}"));
    }

    fn number(&mut self, value: &Value) {
        if value.is_integer() {
            self.out.push_str(&value.to_string());
            return;
        }
        let f = f64::try_from(value.clone()).unwrap_or(f64::NAN);
        if f.is_nan() {
            self.out.push_str("NaN");
        } else if f.is_infinite() {
            self.out.push_str(if f > 0.0 { "Infinity" } else { "-Infinity" });
        } else {
            self.out.push_str(&float_repr(f));
        }
    }

    fn newline(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    /// What stands before the i-th element of a container at this depth.
    fn before(&mut self, i: usize, depth: usize) -> Result<(), Error> {
        if i > 0 {
            self.out.push_str(&self.style.item_separator);
        }
        self.newline(depth + 1);
        self.pay()
    }

    fn sequence(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut n = 0;
        for item in value.try_iter()?.checked() {
            self.before(n, depth)?;
            self.value(&item?, depth + 1)?;
            n += 1;
        }
        if n > 0 {
            self.newline(depth);
        }
        self.out.push(']');
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or("")),
            ValueKind::Bool | ValueKind::None | ValueKind::Number => {
                self.out.push('"');
                self.value(key, 0)?;
                self.out.push('"');
                Ok(())
            }
            kind => Err(fail(format!("tojson: a key of type {kind}"))),
        }
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        if self.style.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        for (i, key) in keys.iter().enumerate() {
            self.before(i, depth)?;
            self.key(key)?;
            self.out.push_str(&self.style.key_separator);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        if !keys.is_empty() {
            self.newline(depth);
        }
        self.out.push('}');
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(fail(format!("tojson: nested deeper than {DEPTH_MAX}")));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or(""))?,
            ValueKind::Seq | ValueKind::Iterable => self.sequence(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(fail(format!("tojson: {kind} has no JSON form"))),
        }
        Ok(())
    }
}

/// json.dumps: an integer indents by so many spaces, a string by itself.
fn indent_of(value: Option<Value>) -> Result<Option<String>, Error> {
    let Some(value) = value else { return Ok(None) };
    if let Some(text) = value.as_str() {
        return Ok(Some(text.to_string()));
    }
    let n = i64::try_from(value).map_err(|_| fail("tojson: indent is no number".into()))?;
    if n > 64 {
        return Err(fail(format!("tojson: indent {n} is more than 64")));
    }
    Ok(Some(" ".repeat(n.max(0) as usize)))
}

fn separators_of(value: Option<Value>, pretty: bool) -> Result<(String, String), Error> {
    let Some(value) = value else {
        let item = if pretty { "," } else { ", " };
        return Ok((item.to_string(), ": ".to_string()));
    };
    let pair = value.try_iter()?.collect::<Vec<_>>();
    match pair.as_slice() {
        [a, b] if a.as_str().is_some() && b.as_str().is_some() => {
            Ok((a.to_string(), b.to_string()))
        }
        _ => Err(fail("tojson: separators must be two strings".into())),
    }
}

/// tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)
pub fn tojson(state: &State, value: &Value, rest: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let rest = rest.into_values();
    let (positional, kwargs): (&[Value], Kwargs) = from_args(&rest)?;
    if positional.len() > 4 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let argument = |i: usize, name: &str| -> Result<Option<Value>, Error> {
        match positional.get(i) {
            Some(v) => Ok(Some(v.clone()).filter(|v| !v.is_none())),
            None => kwargs.get::<Option<Value>>(name),
        }
    };
    let ascii = argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = indent_of(argument(1, "indent")?)?;
    let (item_separator, key_separator) =
        separators_of(argument(2, "separators")?, indent.is_some())?;
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|v| v.is_true());
    kwargs.assert_all_used()?;
    let style = Style { ascii, indent, item_separator, key_separator, sort_keys };
    let mut writer = Writer { out: String::new(), paid: 0, style: &style, state };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}
