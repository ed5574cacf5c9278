//! Calls code of the user from a thread that the interpreter may end in the midst of it. When a process ends, Python before 3.14 ends
//! each thread that wants to go on by `pthread_exit`, which unwinds its stack; through frames of Rust that aborts the process.
//! Invariant: no such unwinding leaves this module. The thread is parked instead, and dies with its process.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Calls `body` without arguments.
pub fn call0<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    imp::call0(body)
}

/// Calls `function` with `arguments`, which are let go of in here: their last reference may run code, too.
pub fn call<'py>(
    function: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    imp::call(function, arguments)
}

#[cfg(unix)]
mod imp {
    use super::{Bound, PyAny, PyResult, PyTuple};
    use pyo3::ffi::PyObject;

    // PyO3 declares these as functions that never unwind, so that the compiler leaves out what would run the guard.
    unsafe extern "C-unwind" {
        fn PyObject_CallNoArgs(callable: *mut PyObject) -> *mut PyObject;
        fn PyObject_CallObject(callable: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject;
        fn Py_DecRef(object: *mut PyObject);
    }

    /// Parks the thread for good when it is dropped, which only happens if the stack is unwound.
    struct Park;

    impl Drop for Park {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }

    /// Runs `work` under the guard.
    fn guarded<T>(work: impl FnOnce() -> T) -> T {
        let park = Park;
        let done = work();
        std::mem::forget(park);
        done
    }

    pub fn call0<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: `body` is alive and the thread is attached, as its lifetime says. The result is a new reference, or null with
        // an exception set, which is what `from_owned_ptr_or_err` takes.
        unsafe {
            let found = guarded(|| PyObject_CallNoArgs(body.as_ptr()));
            Bound::from_owned_ptr_or_err(body.py(), found)
        }
    }

    pub fn call<'py>(
        function: &Bound<'py, PyAny>,
        arguments: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let arguments = arguments.into_ptr();
        // SAFETY: as in `call0`. `arguments` is a tuple and a reference that is ours since `into_ptr`; it is given back once, after the
        // outcome was fetched, because what its end runs may not find an exception set.
        unsafe {
            let found = guarded(|| PyObject_CallObject(function.as_ptr(), arguments));
            let found = Bound::from_owned_ptr_or_err(py, found);
            guarded(|| Py_DecRef(arguments));
            found
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use super::{Bound, PyAny, PyAnyMethods, PyResult, PyTuple};

    // Threads end without unwinding.
    pub fn call0<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        body.call0()
    }

    pub fn call<'py>(
        function: &Bound<'py, PyAny>,
        arguments: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        function.call1(arguments)
    }
}
