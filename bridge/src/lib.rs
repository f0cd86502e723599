//! The C ABI of the bridge; see dil_bridge.h for the contract. One static library for every Rust
//! dependency of the project, because two of them in one link would define std twice. template.rs
//! owns the environment, pyjson.rs and pyformat.rs the places where text must be what Python
//! writes. Room for constrained decoding beside `template`.

mod pyformat;
mod pyjson;
mod template;
mod worker;

use std::ffi::{c_char, c_void};
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::time::Duration;

use template::{Failure, Request, Template};

const OK: i32 = 0;
const SYNTAX: i32 = 1;
const RENDER: i32 = 2;
const LIMIT: i32 = 3;
const BAD_JSON: i32 = 4;
const WRITE: i32 = 5;
const PANIC: i32 = 6;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    p: *const c_char,
    n: usize,
}

impl Text {
    /// The text, None when not given. Err when it is not UTF-8.
    ///
    /// Safety: p must be NULL or point to n readable bytes that outlive the use of the result.
    unsafe fn get<'a>(self) -> Result<Option<&'a str>, Failure> {
        if self.p.is_null() {
            return Ok(None);
        }
        let bytes = std::slice::from_raw_parts(self.p.cast::<u8>(), self.n);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(e) => Err(Failure::BadJson(format!("not UTF-8 at byte {}", e.valid_up_to()))),
        }
    }
}

type WriteFn = extern "C" fn(*mut c_void, *const c_char, usize) -> i32;
type StrftimeFn = extern "C" fn(*const c_char, *mut c_char, usize) -> usize;

#[repr(C)]
pub struct RequestC {
    messages_json: Text,
    tools_json: Text,
    extra_json: Text,
    bos: Text,
    eos: Text,
    add_generation_prompt: i32,
    fuel: u64,
    max_output_bytes: u64,
    timeout_ms: u64,
    write: WriteFn,
    write_ctx: *mut c_void,
    strftime_now: StrftimeFn,
}

/// A panic is reported through the status, not on stderr.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_hook(Box::new(|_| {})));
}

/// Copies text into err, cut at a character so that it fits with its NUL.
///
/// Safety: err must be NULL or point to err_size writable bytes.
unsafe fn set_error(err: *mut c_char, err_size: usize, text: &str) {
    if err.is_null() || err_size == 0 {
        return;
    }
    let mut n = text.len().min(err_size - 1);
    while !text.is_char_boundary(n) {
        n -= 1;
    }
    std::ptr::copy_nonoverlapping(text.as_ptr(), err.cast::<u8>(), n);
    *err.add(n) = 0;
}

fn code_and_text(f: Failure) -> (i32, String) {
    match f {
        Failure::Syntax(text) => (SYNTAX, text),
        Failure::Render(text) => (RENDER, text),
        Failure::Limit(text) => (LIMIT, text),
        Failure::BadJson(text) => (BAD_JSON, text),
        Failure::Write => (WRITE, "the output could not be stored".into()),
        Failure::Panic => (PANIC, "the template engine panicked".into()),
    }
}

/// Runs f; failures and panics become a status and a text.
///
/// Safety: as set_error.
unsafe fn guarded(
    err: *mut c_char,
    err_size: usize,
    f: impl FnOnce() -> Result<(), Failure>,
) -> i32 {
    quiet_panics();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => OK,
        Ok(Err(failure)) => {
            let (code, text) = code_and_text(failure);
            set_error(err, err_size, &text);
            code
        }
        Err(_) => {
            set_error(err, err_size, "the template engine panicked");
            PANIC
        }
    }
}

/// # Safety
/// See dil_bridge.h: out, source and err must be valid for the sizes given.
#[no_mangle]
pub unsafe extern "C" fn dil_bridge_template_new(
    out: *mut *mut Template,
    source: *const c_char,
    n: usize,
    err: *mut c_char,
    err_size: usize,
) -> i32 {
    guarded(err, err_size, || {
        let source = Text { p: source, n }
            .get()
            .map_err(|_| Failure::Syntax("the template is not UTF-8".into()))?
            .unwrap_or("");
        let template = Template::new(source)?;
        *out = Box::into_raw(Box::new(template));
        Ok(())
    })
}

/// # Safety
/// t must come from dil_bridge_template_new; request and its texts must be valid during the call.
#[no_mangle]
pub unsafe extern "C" fn dil_bridge_template_render(
    t: *const Template,
    request: *const RequestC,
    err: *mut c_char,
    err_size: usize,
) -> i32 {
    guarded(err, err_size, || {
        let r = &*request;
        let owned = |text: Text| text.get().map(|t| t.map(str::to_owned));
        let strftime = r.strftime_now;
        let request = Request {
            messages_json: owned(r.messages_json)?.unwrap_or_else(|| "[]".into()),
            tools_json: owned(r.tools_json)?,
            extra_json: owned(r.extra_json)?,
            bos: owned(r.bos)?,
            eos: owned(r.eos)?,
            add_generation_prompt: r.add_generation_prompt != 0,
            fuel: r.fuel,
            max_output_bytes: r.max_output_bytes,
            strftime: Arc::new(move |format: &str| format_time(strftime, format)),
        };
        let text = (*t).render(request, Duration::from_millis(r.timeout_ms))?;
        match (r.write)(r.write_ctx, text.as_ptr().cast(), text.len()) {
            0 => Ok(()),
            _ => Err(Failure::Write),
        }
    })
}

/// The current time by the caller's strftime; None when the format holds a NUL or the result does
/// not fit.
fn format_time(strftime: StrftimeFn, format: &str) -> Option<String> {
    if format.is_empty() {
        return Some(String::new());
    }
    let format = std::ffi::CString::new(format).ok()?;
    let mut buffer = vec![0u8; 1024];
    let n = strftime(format.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
    if n == 0 || n >= buffer.len() {
        return None;
    }
    buffer.truncate(n);
    String::from_utf8(buffer).ok()
}

/// # Safety
/// t must be NULL or come from dil_bridge_template_new and not be used afterwards.
#[no_mangle]
pub unsafe extern "C" fn dil_bridge_template_free(t: *mut Template) {
    if !t.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(t))));
    }
}
