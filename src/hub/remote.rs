//! The mailbox: the only way into a hub from other OS threads.
//!
//! A mailbox lives for ever at a fixed place, because any thread may hold a ticket of a hub that
//! has ended: hubs come and go, and a new hub takes the mailbox of one that ended. Posting takes
//! no lock, so it may be done from any context, also from inside a shim. Why no wake-up is lost is
//! argued in the README of this folder.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Names one park of one greenlet of one hub, for use from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemoteTicket {
    /// The mailbox's index, and in the upper half which of its hubs.
    pub(crate) hub: u64,
    /// The greenlet's id.
    pub(crate) greenlet: u64,
    /// Which of its parks.
    pub(crate) generation: u32,
}

/// The most hubs that can be alive at one time in a process.
const MAILBOXES_MAX: usize = 4096;

/// Every mailbox that was ever made, by index. Entries are set once and stay.
static MAILBOXES: [AtomicPtr<Mailbox>; MAILBOXES_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAILBOXES_MAX];

/// The mailboxes that have no hub. Taken only when a hub starts or ends.
static VACANT: Mutex<Vec<&'static Mailbox>> = Mutex::new(Vec::new());

/// How many of [`MAILBOXES`] are set.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// What other threads see of a hub.
pub(crate) struct Mailbox {
    /// The position in [`MAILBOXES`].
    index: usize,
    /// Counts the hubs that have had this mailbox. A ticket with another number is stale.
    tenant: AtomicU32,
    /// The messages, last one first: a stack that the hub takes as a whole.
    messages: AtomicPtr<Node>,
    /// Whether the hub is asleep in its poll, or about to be: then a post must write to `event`.
    asleep: AtomicBool,
    /// An eventfd which the hub's reactor watches.
    event: OwnedFd,
}

/// One message of the stack. Made by `post`, freed by `take`.
struct Node {
    /// The park to end.
    ticket: RemoteTicket,
    /// The message that was posted before.
    next: *mut Node,
}

impl Mailbox {
    /// A mailbox for a hub that starts now.
    pub(crate) fn acquire() -> std::io::Result<&'static Mailbox> {
        if let Some(mailbox) = VACANT.lock().unwrap_or_else(|e| e.into_inner()).pop() {
            return Ok(mailbox);
        }
        // SAFETY: no pointers are passed; a negative answer is turned into an error below.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: `eventfd` has just made this fd, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let index = MADE.fetch_add(1, Ordering::Relaxed);
        assert!(index < MAILBOXES_MAX, "more than {MAILBOXES_MAX} threads have a hub at one time");
        let mailbox: &'static Mailbox = Box::leak(Box::new(Mailbox {
            index,
            tenant: AtomicU32::new(0),
            messages: AtomicPtr::new(ptr::null_mut()),
            asleep: AtomicBool::new(false),
            event,
        }));
        MAILBOXES[index].store(ptr::from_ref(mailbox).cast_mut(), Ordering::Release);
        Ok(mailbox)
    }

    /// Takes no more messages for the hub, which is ending: its tickets are stale from here on.
    /// Whatever `post` said true to has come by now, and is passed to `receive`.
    pub(crate) fn close(&self, receive: impl FnMut(RemoteTicket)) {
        self.tenant.fetch_add(1, Ordering::SeqCst);
        self.take(receive);
    }

    /// Gives the mailbox back, when the hub has ended.
    pub(crate) fn vacate(&'static self) {
        VACANT.lock().unwrap_or_else(|e| e.into_inner()).push(self);
    }

    /// What a ticket of the present hub carries as `hub`.
    pub(crate) fn hub_id(&self) -> u64 {
        u64::from(self.tenant.load(Ordering::Relaxed)) << 32 | self.index as u64
    }

    /// The fd to watch: readable once after a post to a sleeping hub.
    pub(crate) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Asks the hub to end the park that `ticket` names. From any thread. False if the hub has
    /// ended; also if it is ending at this very moment, and may or may not hear of it.
    pub(crate) fn post(ticket: RemoteTicket) -> bool {
        let index = (ticket.hub & u64::from(u32::MAX)) as usize;
        let mailbox = MAILBOXES[index].load(Ordering::Acquire);
        // SAFETY: a ticket is made by a hub that has a mailbox, so the entry is set, and mailboxes
        // are never freed (`acquire` leaks them).
        let mailbox = unsafe { &*mailbox };
        if mailbox.hub_id() != ticket.hub {
            return false;
        }
        let node = Box::into_raw(Box::new(Node { ticket, next: ptr::null_mut() }));
        let mut head = mailbox.messages.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours until the exchange below succeeds.
            unsafe { (*node).next = head };
            match mailbox.messages.compare_exchange_weak(
                head,
                node,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(current) => head = current,
            }
        }
        if mailbox.asleep.swap(false, Ordering::SeqCst) {
            mailbox.ring();
        }
        // The hub takes its last messages after it has changed the tenant. Both orders being
        // `SeqCst`, whoever still sees the old tenant here was in time.
        mailbox.tenant.load(Ordering::SeqCst) == (ticket.hub >> 32) as u32
    }

    /// Wakes the hub from its poll.
    fn ring(&self) {
        let one: u64 = 1;
        // SAFETY: eight readable bytes are passed, as eventfd(2) wants them. It can fail only
        // because the counter is at its maximum, and then the hub is awake anyway.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Whether there is a message. Cheap enough to be asked at every turn.
    #[inline]
    pub(crate) fn has_messages(&self) -> bool {
        !self.messages.load(Ordering::Relaxed).is_null()
    }

    /// The hub is about to sleep. False if there is a message already: then it must not.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.messages.load(Ordering::SeqCst).is_null() {
            return true;
        }
        self.asleep.store(false, Ordering::Relaxed);
        false
    }

    /// The hub has come back from its poll.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Takes all messages, the oldest first.
    pub(crate) fn take(&self, mut receive: impl FnMut(RemoteTicket)) {
        let mut newest = self.messages.swap(ptr::null_mut(), Ordering::SeqCst);
        let mut oldest: *mut Node = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: the swap took the whole chain, so it is ours alone.
            let next = unsafe { std::mem::replace(&mut (*newest).next, oldest) };
            oldest = newest;
            newest = next;
        }
        while !oldest.is_null() {
            // SAFETY: the chain is ours, and each node was made by `Box::into_raw`.
            let node = unsafe { Box::from_raw(oldest) };
            oldest = node.next;
            receive(node.ticket);
        }
    }
}
