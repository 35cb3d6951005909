//! An allocator that counts what each thread allocates. Include it with `#[path]`: it takes the place of the binary's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread has allocated so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// How often it has allocated.
    pub(crate) allocations: u64,
    /// Bytes that it has allocated and not freed; wraps below 0 if it frees what others have allocated.
    pub(crate) bytes: usize,
}

thread_local! {
    static USAGE: Cell<Usage> = const { Cell::new(Usage { allocations: 0, bytes: 0 }) };
}

/// This thread's.
pub(crate) fn usage() -> Usage {
    USAGE.get()
}

struct Counting;

#[allow(unsafe_code, reason = "an allocator is unsafe by nature; this one only counts")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Usage { allocations, bytes } = USAGE.get();
        USAGE.set(Usage { allocations: allocations + 1, bytes: bytes.wrapping_add(layout.size()) });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Usage { allocations, bytes } = USAGE.get();
        USAGE.set(Usage { allocations, bytes: bytes.wrapping_sub(layout.size()) });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
