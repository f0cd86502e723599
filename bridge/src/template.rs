//! One chat template: its environment, set up as Hugging Face's transformers sets up Jinja2, and
//! its rendering.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use crate::pyformat::str_of;
use crate::pyjson::tojson;
use crate::worker::{self, Limits, Outcome};

const NAME: &str = "chat";
/// Nested macro calls, loops with recursion, includes: each takes native stack, so this also bounds
/// the stack.
const RECURSION_MAX: usize = 100;

/// Heap a template may hold beside what its fuel pays for.
const HEAP_FIXED: usize = 128 << 20;
const TAG_TOKENS_MAX: usize = 8000;

pub enum Failure {
    Syntax(String),
    Render(String),
    Limit(String),
    BadJson(String),
    Write,
    Panic,
}

pub type Strftime = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Owned, because the thread that reads it may be given up.
pub struct Request {
    pub messages_json: String,
    pub tools_json: Option<String>,
    pub extra_json: Option<String>,
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub add_generation_prompt: bool,
    pub fuel: u64,
    pub max_output_bytes: u64,
    pub strftime: Strftime,
}

/// The parsed template in its environment. Fields are dropped in this order: environment first,
/// then what it borrows.
struct Inner {
    environment: Environment<'static>,
    _source: Box<str>,
}

/// What C holds. inner is shared with the threads that render; they may outlive it.
pub struct Template {
    inner: Arc<Inner>,
    given_up: AtomicBool,
}

/// "chat template, line 12: what happened", with the causes behind it.
fn describe(error: &Error) -> String {
    let mut text = match error.line() {
        Some(line) => format!("line {line}: "),
        None => String::new(),
    };
    match error.detail() {
        Some(detail) => text.push_str(detail),
        None => text.push_str(&error.kind().to_string()),
    }
    let mut cause = std::error::Error::source(error);
    while let Some(c) = cause {
        text.push_str(&format!(" ({c})"));
        cause = c.source();
    }
    text
}

/// Length of a `{% generation %}` or `{% endgeneration %}` tag at the start of text, its plain form
/// otherwise None. The markers of whitespace control are kept, so that the replacement trims what
/// the tag would have trimmed.
fn generation_tag(text: &str) -> Option<(usize, String)> {
    let rest = text.strip_prefix("{%")?;
    let open = rest.chars().next().filter(|c| matches!(c, '-' | '+'));
    let inner = &rest[open.map_or(0, char::len_utf8)..];
    let word = inner.trim_start();
    let (word_len, plain) = if word.starts_with("generation") {
        ("generation".len(), "if true")
    } else if word.starts_with("endgeneration") {
        ("endgeneration".len(), "endif")
    } else {
        return None;
    };
    let after = word[word_len..].trim_start();
    let close = after.chars().next().filter(|c| matches!(c, '-' | '+'));
    let end = after[close.map_or(0, char::len_utf8)..].strip_prefix("%}")?;
    let mark = |c: Option<char>| c.map(String::from).unwrap_or_default();
    Some((text.len() - end.len(), format!("{{%{} {plain} {}%}}", mark(open), mark(close))))
}

/// transformers marks the assistant's text with a tag of its own, which changes nothing in the
/// output.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match generation_tag(rest) {
            Some((length, plain)) => {
                out.push_str(&plain);
                rest = &rest[length..];
            }
            None => {
                out.push_str("{%");
                rest = &rest[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// str(value), as `{{ value }}` prints it.
fn string_filter(state: &State, value: &Value) -> Result<Value, Error> {
    if value.as_str().is_some() {
        return Ok(value.clone());
    }
    let mut out = Fueled { text: String::new(), state };
    str_of(&mut out, value)
        .map_err(|_| Error::new(ErrorKind::OutOfFuel, "a value is too large for text"))?;
    Ok(Value::from(out.text))
}

/// As in Python, where None has no iterator.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// A string that is paid for while it grows.
struct Fueled<'a, 'b, 'c> {
    text: String,
    state: &'a State<'b, 'c>,
}

impl std::fmt::Write for Fueled<'_, '_, '_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.state.consume_fuel((s.len() / 64 + 1) as u64).map_err(|_| std::fmt::Error)?;
        self.text.push_str(s);
        Ok(())
    }
}

/// Python's methods. join and format are ours or guarded, because theirs make their text before it
/// is paid for.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name, args) {
        (Some(separator), "join", [items]) => join(state, separator, items),
        (Some(format), "format", _) => {
            check_widths(format)?;
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn join(state: &State, separator: &str, items: &Value) -> Result<Value, Error> {
    use std::fmt::Write;
    let mut out = Fueled { text: String::new(), state };
    for (i, item) in items.try_iter()?.checked().enumerate() {
        let item = item?;
        let written = if i > 0 { out.write_str(separator) } else { Ok(()) };
        written
            .and_then(|()| str_of(&mut out, &item))
            .map_err(|_| Error::from(ErrorKind::OutOfFuel))?;
    }
    Ok(Value::from(out.text))
}

/// Widths and precisions of a format string: at most four digits, and never taken from an argument.
fn check_widths(format: &str) -> Result<(), Error> {
    let (mut digits, mut open) = (0, 0);
    for c in format.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        open = match c {
            '{' => open + 1,
            '}' => 0,
            _ => open,
        };
        let nested = open > 1 && format.contains(":{");
        if digits > 4 || nested {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "format: a width of more than four digits",
            ));
        }
    }
    Ok(())
}

fn configure(environment: &mut Environment<'static>) -> Result<(), Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_debug(false);
    environment.remove_global("debug");
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, _, value| str_of(out, value).map_err(Error::from));
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", string_filter);
    environment.add_test("iterable", is_iterable);
    environment.add_function("raise_exception", raise_exception);
    Ok(())
}

/// Collects the output and stops at the maximum.
struct Sink {
    text: Vec<u8>,
    max: u64,
    full: bool,
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.text.len() + bytes.len()) as u64 > self.max {
            self.full = true;
            return Err(io::Error::other("output is too large"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn parse(what: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str::<Value>(text).map_err(|e| Failure::BadJson(format!("{what}: {e}")))
}

/// The parser and what follows it recurse along chains of operators, so their length is bounded
/// before. Texts in quotes count as one; real templates stay below 100.
fn check_tags(source: &str) -> Result<(), Failure> {
    let bytes = source.as_bytes();
    let (mut at, mut line) = (0, 1);
    while at + 1 < bytes.len() {
        line += usize::from(bytes[at] == b'\n');
        if bytes[at] == b'{' && matches!(bytes[at + 1], b'{' | b'%') {
            let tag = tag_tokens(&bytes[at..]);
            if tag > TAG_TOKENS_MAX {
                return Err(Failure::Syntax(format!(
                    "line {line}: a tag of more than {TAG_TOKENS_MAX} words and signs"
                )));
            }
        }
        at += 1;
    }
    Ok(())
}

/// Words, signs and quoted texts of the tag that starts here, up to its end; counting stops above
/// the maximum.
fn tag_tokens(tag: &[u8]) -> usize {
    let close: &[u8] = if tag[1] == b'{' { b"}}" } else { b"%}" };
    let (mut tokens, mut at, mut in_word, mut quote) = (0, 2, false, 0u8);
    while at < tag.len() && tokens <= TAG_TOKENS_MAX {
        let c = tag[at];
        if quote != 0 {
            at += usize::from(c == b'\\');
            quote = if c == quote { 0 } else { quote };
        } else if tag[at..].starts_with(close) && tokens < TAG_TOKENS_MAX {
            return tokens;
        } else {
            let word = c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80;
            tokens += usize::from(!c.is_ascii_whitespace() && !(word && in_word));
            in_word = word;
            quote = if matches!(c, b'"' | b'\'') { c } else { 0 };
        }
        at += 1;
    }
    tokens
}

impl Inner {
    fn new(source: &str) -> Result<Inner, Failure> {
        check_tags(source)?;
        let source = without_generation_tags(source).into_boxed_str();
        // Safety: the boxed text does not move and outlives the environment, which is dropped
        // first.
        let borrowed: &'static str = unsafe { &*std::ptr::from_ref::<str>(&source) };
        let mut environment = Environment::new();
        configure(&mut environment).map_err(|e| Failure::Syntax(describe(&e)))?;
        environment.add_template(NAME, borrowed).map_err(|e| Failure::Syntax(describe(&e)))?;
        Ok(Inner { environment, _source: source })
    }

    /// The variables a template sees. Those of extra come first, so that they cannot replace the
    /// conversation.
    fn variables(request: &Request) -> Result<Value, Failure> {
        let mut all: Vec<(String, Value)> =
            vec![("tools".into(), Value::from(())), ("documents".into(), Value::from(()))];
        if let Some(text) = &request.extra_json {
            let extra = parse("extra", text)?;
            if extra.kind() != ValueKind::Map {
                return Err(Failure::BadJson("extra: not an object".into()));
            }
            for key in extra.try_iter().map_err(|e| Failure::BadJson(describe(&e)))? {
                all.push((key.to_string(), extra.get_item(&key).unwrap_or_default()));
            }
        }
        if let Some(text) = &request.tools_json {
            all.push(("tools".into(), parse("tools", text)?));
        }
        all.push(("messages".into(), parse("messages", &request.messages_json)?));
        all.push(("add_generation_prompt".into(), Value::from(request.add_generation_prompt)));
        for (name, text) in [("bos_token", &request.bos), ("eos_token", &request.eos)] {
            if let Some(text) = text {
                all.push((name.into(), Value::from(text.as_str())));
            }
        }
        let strftime = request.strftime.clone();
        let now = move |format: &str| {
            strftime(format).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "strftime_now: the format is too long")
            })
        };
        all.push(("strftime_now".into(), Value::from_function(now)));
        Ok(Value::from_pairs(all))
    }

    fn render(&self, request: &Request) -> Result<Vec<u8>, Failure> {
        let variables = Self::variables(request)?;
        let mut environment = self.environment.clone(); // shares the parsed template
        environment.set_fuel(Some(request.fuel));
        let template = environment.get_template(NAME).map_err(|e| Failure::Render(describe(&e)))?;
        let mut sink = Sink { text: Vec::new(), max: request.max_output_bytes, full: false };
        match template.render_captured_to(variables, &mut sink).map(|_| ()) {
            Ok(()) => Ok(sink.text),
            Err(_) if sink.full => Err(Failure::Limit(format!(
                "the text is longer than {} bytes",
                request.max_output_bytes
            ))),
            Err(e) if is_out_of_fuel(&e) => {
                let line = e.line().map_or(String::new(), |l| format!("line {l}: "));
                Err(Failure::Limit(format!(
                    "{line}the template works too long (fuel {})",
                    request.fuel
                )))
            }
            Err(e) => Err(Failure::Render(describe(&e))),
        }
    }
}

/// Deep data recurses when it is printed, compared or freed; how deep it can get is bounded by the
/// fuel.
fn stack_for(fuel: u64) -> usize {
    (64 << 20) + usize::try_from(fuel).unwrap_or(usize::MAX >> 16).min(1 << 22) * 256
}

fn finished<T>(outcome: Outcome<Result<T, Failure>>) -> Result<T, Failure> {
    match outcome {
        Outcome::Done(result) => result,
        Outcome::GivenUp => {
            Err(Failure::Limit("the template works too long or takes too much memory".into()))
        }
        Outcome::Panicked => Err(Failure::Panic),
        Outcome::NoThread => Err(Failure::Limit("no thread could be started".into())),
    }
}

impl Template {
    pub fn new(source: &str) -> Result<Template, Failure> {
        let limits = Limits {
            stack_bytes: stack_for(0),
            heap_bytes: HEAP_FIXED,
            time: Duration::from_secs(10),
        };
        let source = source.to_owned();
        let inner = finished(worker::run(&limits, move || Inner::new(&source)))?;
        Ok(Template { inner: Arc::new(inner), given_up: AtomicBool::new(false) })
    }

    pub fn render(&self, request: Request, time: Duration) -> Result<Vec<u8>, Failure> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(Failure::Limit(
                "the template was given up before, because it did not end".into(),
            ));
        }
        let inner = self.inner.clone();
        let limits = Limits {
            stack_bytes: stack_for(request.fuel),
            heap_bytes: HEAP_FIXED
                .saturating_add(usize::try_from(request.fuel).unwrap_or(0).saturating_mul(64)),
            time,
        };
        let outcome = worker::run(&limits, move || inner.render(&request));
        if !matches!(outcome, Outcome::Done(_) | Outcome::NoThread) {
            self.given_up.store(true, Ordering::Relaxed);
        }
        finished(outcome)
    }
}

fn is_out_of_fuel(error: &Error) -> bool {
    if error.kind() == ErrorKind::OutOfFuel {
        return true;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(c) = cause {
        if c.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return true;
        }
        cause = c.source();
    }
    false
}
