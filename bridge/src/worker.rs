//! Runs the work of a template on a thread of its own, with the stack and the limits untrusted
//! input needs.
//!
//! Fuel bounds what a template makes, but some single operations on shared data (a list that holds
//! the same list twice, fifty levels deep, compared or printed) take time that no budget inside the
//! engine sees. Such work cannot be stopped from outside, and must not take the process with it. So
//! the caller waits up to a deadline and then gives the thread up; the thread itself is put to
//! sleep for good at its next allocation, by the allocator below. It keeps what it held: that is
//! why a template that was given up once is never run again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

thread_local! {
    /// Set in worker threads only: what says that this thread was given up, and the bytes it may
    /// still take.
    static GIVEN_UP: Cell<*const AtomicBool> = const { Cell::new(std::ptr::null()) };
    static BYTES_LEFT: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// The system's allocator, except that a worker that was given up or took too much sleeps instead
/// of returning.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn before_allocation(bytes: usize) {
    let _ = GIVEN_UP.try_with(|flag| {
        let flag = flag.get();
        if flag.is_null() {
            return;
        }
        let _ = BYTES_LEFT.try_with(|left| {
            left.set(left.get().saturating_sub_unsigned(bytes));
            // Safety: the flag lives as long as the thread, see run().
            while left.get() < 0 || unsafe { (*flag).load(Ordering::Relaxed) } {
                std::thread::park();
            }
        });
    });
}

fn after_release(bytes: usize) {
    let _ = BYTES_LEFT.try_with(|left| left.set(left.get().saturating_add_unsigned(bytes)));
}

// Safety: every call is handed to System unchanged.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        before_allocation(layout.size());
        System.alloc(layout)
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        before_allocation(layout.size());
        System.alloc_zeroed(layout)
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        System.dealloc(p, layout);
        after_release(layout.size());
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        before_allocation(size);
        let moved = System.realloc(p, layout, size);
        if !moved.is_null() {
            after_release(layout.size());
        }
        moved
    }
}

pub struct Limits {
    pub stack_bytes: usize,
    pub heap_bytes: usize,
    pub time: Duration,
}

pub enum Outcome<T> {
    Done(T),
    GivenUp,
    Panicked,
    NoThread,
}

/// Runs work on a new thread. GivenUp: neither its time nor its memory sufficed; the thread and
/// what work owned stay.
pub fn run<T: Send + 'static>(
    limits: &Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<T> {
    let given_up = Arc::new(AtomicBool::new(false));
    let seen = given_up.clone();
    let heap = isize::try_from(limits.heap_bytes).unwrap_or(isize::MAX);
    let (sender, receiver) = sync_channel(1);
    let spawned = Builder::new().stack_size(limits.stack_bytes).spawn(move || {
        GIVEN_UP.set(Arc::as_ptr(&seen));
        BYTES_LEFT.set(heap);
        let result = work();
        GIVEN_UP.set(std::ptr::null());
        let _ = sender.send(result);
        drop(seen);
    });
    let Ok(handle) = spawned else {
        return Outcome::NoThread;
    };
    match receiver.recv_timeout(limits.time) {
        Ok(result) => {
            let _ = handle.join();
            Outcome::Done(result)
        }
        Err(RecvTimeoutError::Disconnected) => Outcome::Panicked,
        Err(RecvTimeoutError::Timeout) => {
            given_up.store(true, Ordering::Relaxed);
            Outcome::GivenUp
        }
    }
}
