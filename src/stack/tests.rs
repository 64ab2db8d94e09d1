//! What stacks promise. Whatever ends a process, or needs one of its own, runs in a child:
//! [`in_child`].

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::{fs, hint, io};

use super::guard::{self, Kind};
use super::slot::{GRAIN, GUARD_BYTES, Stack, StackSize, TLS_BYTES, run_on};
use super::{Stacks, default_stack_size, set_describe, size};

/// The variable that makes [`child`] run a case.
const CASE: &str = "GREENLING_TEST_STACK_CASE";

#[test]
fn reuse_is_last_in_first_out() {
    let stacks = Stacks::new();
    let [a, b] = [(); 2].map(|()| stacks.acquire(None).unwrap());
    let bases = [a.base(), b.base()];
    stacks.release(a);
    stacks.release(b);
    let [first, second] = [(); 2].map(|()| stacks.acquire(None).unwrap());
    assert_eq!([first.base(), second.base()], [bases[1], bases[0]]);
    stacks.release(first);
    stacks.release(second);
}

#[test]
fn a_stack_is_one_word() {
    assert_eq!(size_of::<Stack>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Stack>>(), size_of::<usize>());
}

#[test]
fn contents_survive_in_every_byte_of_every_stack() {
    let stacks = Stacks::new();
    for bytes in [1, 20 << 10, 192 << 10, 200 << 10, 1 << 20, 64 << 20] {
        let size = StackSize::at_least(bytes);
        let held: Vec<_> = (0..20).map(|_| stacks.acquire(Some(size)).unwrap()).collect();
        for (index, stack) in held.iter().enumerate() {
            assert!(stack.base().is_multiple_of(64) && stack.base() - stack.lowest() >= bytes);
            assert!(stack.tls().addr().get() >= stack.base());
            assert_eq!(stack.tls().addr().get() + TLS_BYTES, stack.slot_end());
            for address in ends(stack) {
                poke(stack, address, index as u8 + 1);
            }
        }
        for (index, stack) in held.iter().enumerate() {
            assert!(ends(stack).into_iter().all(|address| peek(stack, address) == index as u8 + 1));
        }
        held.into_iter().for_each(|stack| stacks.release(stack));
    }
    assert_eq!(stacks.stats().in_use, 0);
}

#[test]
fn a_closure_runs_on_a_stack_and_the_stack_comes_back() {
    let stacks = Stacks::new();
    let stack = stacks.acquire(None).unwrap();
    let (lowest, base) = (stack.lowest(), stack.base());
    let stack = run_on(stack, move || {
        let here = 0_u8;
        let address = hint::black_box(&raw const here).addr();
        assert!((lowest..base).contains(&address));
    });
    assert_eq!(stack.base(), base);
    stacks.release(stack);
}

#[test]
fn sizes_round_up_to_a_class() {
    let class = |bytes| StackSize::at_least(bytes).bytes();
    if GRAIN == 4096 {
        assert_eq!(
            [0, 1, 16 << 10, (16 << 10) + 1].map(class),
            [16, 16, 16, 24].map(|kib| kib << 10)
        );
        assert_eq!([192 << 10, 193 << 10, 64 << 20].map(class), [192 << 10, 256 << 10, 64 << 20]);
        // Even numbers of pages would put the tops in the same sets of the TLB.
        assert!(StackSize::all().all(|size| (size.stride() / 4096) % 2 == 1));
        assert_eq!(StackSize::at_least(192 << 10).stride(), 268 << 10);
    }
    assert!(StackSize::all().is_sorted_by_key(StackSize::bytes));
    assert!(StackSize::all().all(|size| size.stride().is_multiple_of(GRAIN)));
}

#[test]
fn a_size_no_kernel_can_map_is_an_error_and_leaks_nothing() {
    let stacks = Stacks::new();
    let error = stacks.acquire(Some(StackSize::at_least(usize::MAX))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("cannot map"), "{error}");
    assert_eq!(stacks.stats(), Default::default());
}

#[test]
#[should_panic = "released to the stacks it was acquired from"]
fn a_stack_of_others_is_not_taken() {
    let (ours, others) = (Stacks::new(), Stacks::new());
    ours.release(others.acquire(None).unwrap());
}

#[test]
#[cfg(target_os = "linux")]
fn slabs_shrink_when_address_space_runs_out_and_then_the_error_says_so() {
    let child = in_child("address-space", &[]);
    assert!(child.output.status.success(), "{}", child.text);
}

#[test]
fn huge_stacks_are_unmapped_on_release() {
    let stacks = Stacks::new();
    let held = [(); 3].map(|()| stacks.acquire(Some(StackSize::at_least(64 << 20))).unwrap());
    assert_eq!((stacks.stats().in_use, stacks.stats().slabs), (3, 3));
    held.into_iter().for_each(|stack| stacks.release(stack));
    assert_eq!(stacks.stats(), Default::default());
}

#[test]
fn the_environment_is_parsed_with_suffixes() {
    for (text, bytes) in [
        ("262144", 256 << 10),
        ("256K", 256 << 10),
        ("256kib", 256 << 10),
        (" 1M ", 1 << 20),
        ("1g", 1 << 30),
    ] {
        assert_eq!(size::parse(text), Ok(bytes), "{text}");
    }
    for text in ["", "K", "0", "-1", "12Q", "1.5M", "M1", "99999999999999999999", "99999999999999G"]
    {
        let message = size::parse(text).unwrap_err();
        assert!(message.contains("GREENLING_STACK_SIZE") && message.contains(text), "{message}");
    }
}

#[test]
fn the_environment_sets_the_default() {
    assert_eq!(in_child("default-size", &[("GREENLING_STACK_SIZE", "100K")]).text, "131072");
    let child = in_child("default-size", &[("GREENLING_STACK_SIZE", "plenty")]);
    assert!(
        child.text.contains("GREENLING_STACK_SIZE must be a number of bytes"),
        "{}",
        child.text
    );
    assert!(!child.output.status.success());
}

#[test]
fn the_budget_leaves_headroom() {
    assert_eq!(guard::budget_of(65_530, 100), 30_667);
    assert_eq!(guard::budget_of(100, 200), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn stacks_beyond_the_budget_are_an_error_that_names_the_sysctl() {
    let child = in_child("budget", &[("GREENLING_STACK_GUARD", "mprotect")]);
    assert!(child.output.status.success(), "{}", child.text);
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_thousand_stacks_take_few_maps() {
    if guard::kind() == Kind::Install {
        let child = in_child("many", &[]);
        assert!(child.output.status.success(), "{}", child.text);
    }
}

#[test]
fn trim_spares_the_hottest_and_returns_the_rest() {
    for guard in GUARDS {
        let child = in_child("trim", guard);
        assert!(child.output.status.success(), "{}", child.text);
    }
}

#[test]
fn unused_stacks_are_trimmed_after_a_whole_period() {
    let stacks = Stacks::new();
    let burst = |count| {
        let held: Vec<_> = (0..count).map(|_| stacks.acquire(None).unwrap()).collect();
        held.iter().for_each(|stack| poke(stack, stack.base() - 8, 1));
        let bases: Vec<_> = held.iter().map(Stack::base).collect();
        held.into_iter().for_each(|stack| stacks.release(stack));
        bases
    };
    burst(2000);
    // All were needed since the start: nothing goes.
    assert!(!stacks.trim_unused());
    assert_eq!(stacks.stats().pooled, 2000);
    burst(100);
    // 1,900 were not needed since, and a call treats 512. None of the slabs of 64, 64, 128, 256,
    // 512 and 1,024 that are wholly among them stays.
    assert_eq!([(); 4].map(|()| stacks.trim_unused()), [true, true, true, false]);
    let stats = stacks.stats();
    assert!(stats.pooled < 2000 && stats.pooled >= 100 && stats.in_use == 0, "{stats:?}");
    // The hottest are still hot, and the pool works on.
    let bases = burst(100);
    assert_eq!(bases.len(), 100);
    burst(3000);
    assert_eq!(stacks.stats().pooled, 3000);
}

#[test]
fn trimming_in_steps_spares_what_the_last_period_used() {
    let stacks = Stacks::new();
    let sizes = [16, 64, 192].map(|kib| StackSize::at_least(kib << 10));
    let burst = |count| {
        for size in sizes {
            let held: Vec<_> = (0..count).map(|_| stacks.acquire(Some(size)).unwrap()).collect();
            held.iter().for_each(|stack| poke(stack, stack.base() - 8, 7));
            held.into_iter().for_each(|stack| stacks.release(stack));
        }
    };
    let still_hot = || {
        for size in sizes {
            let held: Vec<_> = (0..20).map(|_| stacks.acquire(Some(size)).unwrap()).collect();
            assert!(held.iter().all(|stack| peek(stack, stack.base() - 8) == 7));
            held.into_iter().rev().for_each(|stack| stacks.release(stack));
        }
    };
    burst(512 + 20);
    assert!(!stacks.trim_unused());
    burst(20);
    // 512 of each size weren't needed: a step for each, and the smallest, done first, keep theirs.
    assert_eq!([(); 3].map(|()| stacks.trim_unused()), [true, true, false]);
    still_hot();
    assert!(!stacks.trim_unused());
    still_hot();
}

#[test]
fn an_abandoned_stack_keeps_its_slab() {
    let stacks = Stacks::new();
    let (kept, released) = (stacks.acquire(None).unwrap(), stacks.acquire(None).unwrap());
    stacks.release(released);
    poke(&kept, kept.base() - 8, 42);
    stacks.trim(0);
    drop(stacks);
    assert_eq!(peek(&kept, kept.base() - 8), 42);
}

#[test]
fn an_overflow_is_reported_and_aborts() {
    for guard in GUARDS {
        for case in ["overflow", "overflow-on-thread", "overflow-foreign"] {
            let child = in_child(case, guard);
            assert_eq!(child.output.status.signal(), Some(libc::SIGABRT), "{case}: {}", child.text);
            let expected = "\ngreenlet 'deep' (id 7), spawned at src/main.rs:10:5, \
                            has overflowed its stack of 192 KiB\n\
                            help: raise it with Builder::stack_size or GREENLING_STACK_SIZE\n\
                            fatal runtime error: stack overflow, aborting";
            assert!(child.text.ends_with(expected), "{case}: {}", child.text);
        }
        let child = in_child("overflow-undescribed", guard);
        assert!(
            child.text.contains("\na greenlet has overflowed its stack of 16 KiB\n"),
            "{}",
            child.text
        );
    }
}

#[test]
fn other_faults_are_left_to_the_previous_handler() {
    let thread = in_child("overflow-thread", &[]);
    assert_eq!(thread.output.status.signal(), Some(libc::SIGABRT));
    assert!(
        thread.text.contains("thread 'shallow'") && !thread.text.contains("greenlet"),
        "{}",
        thread.text
    );

    let guarded = |case| {
        let child = in_child(case, &[]);
        assert_eq!(child.output.status.signal(), Some(libc::SIGSEGV), "{case}: {}", child.text);
        assert!(!child.text.contains("greenlet"), "{case}: {}", child.text);
    };
    // A plain fault, one on a greenlet's stack, a signal that was sent, and a wild write into a
    // guard by someone else.
    for case in ["segv", "segv-on-stack", "segv-sent", "segv-wild-write"] {
        guarded(case);
    }
    assert_eq!(in_child("segv-chained", &[]).output.status.code(), Some(33));
}

/// The environments that force each kind of guard this system has.
const GUARDS: [&[(&str, &str)]; 2] = [&[], &[("GREENLING_STACK_GUARD", "mprotect")]];

/// What a child did.
struct Child {
    /// Its exit status and what it wrote to standard output.
    output: Output,
    /// What it wrote to standard error, without white space at the end.
    text: String,
}

/// Runs a case of [`child`] in a process of its own.
fn in_child(case: &str, variables: &[(&str, &str)]) -> Child {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stack::tests::child", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Child { output, text }
}

/// The cases for a process of their own; no test without [`CASE`].
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else { return };
    let describe = |base: usize, out: &mut dyn FnMut(&[u8])| {
        assert!(base.is_multiple_of(64));
        out(b"greenlet 'deep' (id 7), ");
        out(b"spawned at src/main.rs:10:5,");
    };
    match case.as_str() {
        "default-size" => eprint!("{}", default_stack_size()),
        "budget" => {
            let stacks = Stacks::new();
            let mut held = Vec::new();
            let error = loop {
                match stacks.acquire(None) {
                    Ok(stack) => held.push(stack),
                    Err(error) => break error,
                }
            };
            let text = error.to_string();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert!(text.contains("vm.max_map_count") && text.contains("6.13"), "{text}");
            assert!(text.contains(&held.len().to_string()), "{text}");
            assert_eq!(stacks.stats().in_use, held.len());
            // The process can still map, the released can be had again, and unmapping them makes
            // room.
            Command::new("true").status().unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            held.drain(..).for_each(|stack| stacks.release(stack));
            stacks.trim(0);
            held.extend((0..1000).map(|_| stacks.acquire(None).unwrap()));
            held.into_iter().for_each(|stack| stacks.release(stack));
        }
        "address-space" => {
            let stacks = Stacks::new();
            let pages = fs::read_to_string("/proc/self/statm").unwrap();
            let used = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * GRAIN as u64;
            let limit = libc::rlimit { rlim_cur: used + (24 << 20), rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the limit is a live value.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            let mut held = Vec::new();
            let error = loop {
                match stacks.acquire(None) {
                    Ok(stack) => held.push(stack),
                    Err(error) => break error,
                }
            };
            // 64 of 268 KiB take 17 MiB, and what is left is found by smaller slabs.
            assert!((65..100).contains(&held.len()), "{}", held.len());
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("cannot map"), "{error}");
            assert_eq!(stacks.stats().in_use, held.len());
        }
        "many" => {
            let before = maps();
            let stacks = Stacks::new();
            let held: Vec<_> = (0..100_000).map(|_| stacks.acquire(None).unwrap()).collect();
            held.iter().for_each(|stack| poke(stack, stack.base() - 8, 1));
            assert!(maps() - before < 30, "{}", maps() - before);
            assert!(resident() < 100_000 * 4096 + (16 << 20));
            held.into_iter().for_each(|stack| stacks.release(stack));
            drop(stacks);
            assert!(resident() < 16 << 20 && maps() <= before + 4);
        }
        "trim" => {
            let stacks = Stacks::new();
            let held: Vec<_> = (0..512).map(|_| stacks.acquire(None).unwrap()).collect();
            for stack in &held {
                for address in (stack.lowest()..stack.base()).step_by(4096) {
                    poke(stack, address, 1);
                }
            }
            // One stack in the middle stays in use, so that its slab stays mapped.
            let mut held = held;
            let used = held.remove(200);
            let hot = held.last().unwrap().base();
            held.into_iter().for_each(|stack| stacks.release(stack));
            if cfg!(target_os = "linux") {
                assert!(resident() > 512 * (192 << 10));
                stacks.trim(64);
                assert!(resident() < (64 + 1) * (32 << 10) + (192 << 10) + (16 << 20));
            }
            assert_eq!(peek(&used, used.lowest()), 1);
            let first = stacks.acquire(None).unwrap();
            assert_eq!((first.base(), peek(&first, first.base() / 4096 * 4096)), (hot, 1));
            // The guards are still there.
            stacks.trim(0);
            let all: Vec<_> = (0..511).map(|_| stacks.acquire(None).unwrap()).collect();
            for stack in all.iter().chain([&used, &first]) {
                assert!(!readable(stack.lowest() - 1) && !readable(stack.slot_low()));
                assert!(readable(stack.lowest()) && readable(stack.tls().addr().get()));
            }
        }
        "overflow" => {
            set_describe(describe);
            overflow(&Stacks::new(), None);
        }
        "overflow-on-thread" => {
            set_describe(describe);
            // The other cases run on the main thread, as libtest does it with one thread.
            let _ = std::thread::spawn(|| overflow(&Stacks::new(), None)).join();
        }
        "overflow-foreign" => {
            set_describe(describe);
            // A thread std didn't make has no alternate stack.
            extern "C" fn main(_: *mut libc::c_void) -> *mut libc::c_void {
                overflow(&Stacks::new(), None);
                std::ptr::null_mut()
            }
            // SAFETY: `main` has the signature pthread_create wants, and the thread is joined.
            unsafe {
                let mut thread = std::mem::zeroed();
                assert_eq!(
                    libc::pthread_create(&mut thread, std::ptr::null(), main, std::ptr::null_mut()),
                    0
                );
                libc::pthread_join(thread, std::ptr::null_mut());
            }
        }
        "overflow-undescribed" => overflow(&Stacks::new(), Some(StackSize::at_least(1))),
        "overflow-thread" => {
            let _stacks = Stacks::new();
            let thread = std::thread::Builder::new().name("shallow".into());
            let _ = thread.spawn(|| recurse(0)).unwrap().join();
        }
        "segv" => {
            let _stacks = Stacks::new();
            wild_write(8);
        }
        "segv-on-stack" => {
            let stacks = Stacks::new();
            stacks.release(run_on(stacks.acquire(None).unwrap(), || wild_write(8)));
        }
        "segv-sent" => {
            let _stacks = Stacks::new();
            // std's handler takes the first for a fault and only restores the default action.
            // SAFETY: raising a signal that kills the process.
            let _ = [(); 2].map(|()| unsafe { libc::raise(libc::SIGSEGV) });
        }
        "segv-wild-write" => {
            let stacks = Stacks::new();
            let victim = stacks.acquire(None).unwrap();
            let middle = victim.slot_low() + GUARD_BYTES / 2;
            stacks.release(run_on(stacks.acquire(None).unwrap(), move || wild_write(middle)));
        }
        "segv-chained" => {
            extern "C" fn handler(signal: libc::c_int) {
                // SAFETY: _exit may be called in a handler.
                unsafe { libc::_exit(if signal == libc::SIGSEGV { 33 } else { 34 }) }
            }
            // SAFETY: the handler takes one argument, as one without SA_SIGINFO does.
            unsafe { libc::signal(libc::SIGSEGV, handler as *const () as usize) };
            let stacks = Stacks::new();
            stacks.release(run_on(stacks.acquire(None).unwrap(), || wild_write(8)));
        }
        other => panic!("no such case: {other}"),
    }
}

/// Runs into the guard of a stack.
fn overflow(stacks: &Stacks, size: Option<StackSize>) {
    let stack = stacks.acquire(size).unwrap();
    stacks.release(run_on(stack, || {
        hint::black_box(recurse(0));
    }));
}

/// Never ends.
#[expect(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = hint::black_box([depth; 16]);
    recurse(depth + 1) + hint::black_box(frame)[0]
}

/// Faults.
fn wild_write(address: usize) {
    // SAFETY: it isn't; the process is meant to die of it.
    unsafe {
        std::ptr::with_exposed_provenance_mut::<u8>(hint::black_box(address)).write_volatile(1)
    }
}

/// The lowest and the highest byte of the usable stack, and of the thread-local storage.
fn ends(stack: &Stack) -> [usize; 4] {
    [stack.lowest(), stack.base() - 1, stack.tls().addr().get(), stack.slot_end() - 1]
}

/// Writes a byte.
fn poke(stack: &Stack, address: usize, value: u8) {
    assert!((stack.lowest()..stack.slot_end()).contains(&address));
    // SAFETY: the address lies in the stack, which is ours.
    unsafe { stack.pointer(address).write_volatile(value) }
}

/// Reads a byte.
fn peek(stack: &Stack, address: usize) -> u8 {
    assert!((stack.lowest()..stack.slot_end()).contains(&address));
    // SAFETY: the address lies in the stack, which is ours.
    unsafe { stack.pointer(address).read_volatile() }
}

/// Whether the kernel can read a byte, which it says without a signal.
fn readable(address: usize) -> bool {
    let (reader, mut pipe) = io::pipe().unwrap();
    // SAFETY: the kernel checks the address and returns EFAULT if it is bad.
    let written = unsafe {
        use std::os::fd::AsRawFd;
        libc::write(pipe.as_raw_fd(), std::ptr::with_exposed_provenance(address), 1)
    };
    drop((io::Write::flush(&mut pipe), reader));
    written == 1
}

/// The mappings of this process.
fn maps() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// The resident bytes of this process.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * GRAIN
}
