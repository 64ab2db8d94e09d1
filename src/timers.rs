//! The hub's timers: a hierarchical timing wheel over deadlines in nanoseconds since the hub's
//! epoch.
//!
//! Every blocking call with a timeout is an insert and, nearly always, a cancel: both are O(1) and
//! touch one entry, its neighbours in a list and one slot. There is no clock here: time comes in as
//! a number, so that the tests need no sleep.
//!
//! # The wheel
//!
//! A `u64` is eleven digits of six bits. An entry's **level** is the highest digit in which its
//! deadline differs from `elapsed`, the time of the last [`Timers::expire`], and its **slot** in
//! that level is the deadline's digit there.
//!
//! ```text
//!   digit      10        9     ...      2        1        0
//!            +----+  +------+        +------+ +------+ +------+
//!   elapsed  |  0 |  |    0 |  ...   |   17 | |   40 | |    5 |
//!            +----+  +------+        +------+ +------+ +------+
//!            :    :  :      :        : same : :  40  : :    9 :   deadline A: level 0, slot  9
//!            :    :  :      :        : same : :  63  : :    2 :   deadline B: level 1, slot 63
//!            :    :  :      :        :   18 : :   0  : :   60 :   deadline C: level 2, slot 18
//!
//!   level 0    slots of  1 ns   [ . . . . e . . . A . . . . ]   e: the slot of elapsed itself,
//!   level 1    slots of 64 ns   [ . . . . . . . . . . . . B ]      for deadlines that are past
//!   level 2    slots of  4 us   [ . . . C . . . . . . . . . ]
//!     ...                               |
//!   level 5    slots of  1 s            v   a slot is a list of entries, first inserted first,
//!     ...                                   and a lower bound on their deadlines:
//!   level 10   slots of 36 y            head -> entry <-> entry <-> entry <- tail
//! ```
//!
//! A slot of level `l` spans as much time as all of level `l - 1`, and lies wholly after it. So the
//! order of time is: level 0 from its first slot to its last, then level 1, and so on, and the
//! earliest deadline is in the lowest occupied slot of the lowest occupied level. Unlike in
//! Varghese and Lauck's wheel no slot ever wraps round: in every level only slots after the digit
//! of `elapsed` are occupied, except for slot `e` above.
//!
//! When time moves on to `now`, let L be the highest digit in which `now` and the old `elapsed`
//! differ. Levels below L are over, and so are the slots of level L before the digit of `now`. The
//! slot *at* that digit is taken apart: what is due fires, what is not goes to lower levels. All
//! others keep their place, since no digit that placed them has changed. An entry is moved at most
//! ten times in its life, and most are cancelled before their first move.
//!
//! # The order in which timers fire
//!
//! By deadline, and for equal deadlines first inserted, first fired. No sequence number is needed
//! for that:
//!
//! 1. An entry's slot depends on its deadline and on `elapsed` only. So at any time **all entries
//!    with one deadline are in one list**. (Past deadlines share slot `e`; an equal one from before
//!    has fired, as all with deadline <= `elapsed` have.)
//! 2. An insert appends to that list, and a cancel changes no order, so there entries with equal
//!    deadlines are in the order of insertion.
//! 3. Taking a slot apart walks its list from head to tail and appends to lists that hold no entry
//!    with that deadline yet, by 1. So it keeps the order, and an entry inserted directly into such
//!    a list later comes after the moved ones.
//! 4. Slots are emptied in the order of time, and what one slot yields is sorted by deadline with a
//!    *stable* sort.
//!
//! Must never: call out, read a clock, or keep anything but the wheel. Expired values are handed
//! back in a vector, so whatever happens when they are woken finds the wheel whole.

use crate::slab::{Id, NIL, Slab};

/// Bits of a digit: 64 slots per level, so that one word says which are occupied.
const DIGIT_BITS: u32 = 6;
/// Slots of a level.
const SLOTS: usize = 1 << DIGIT_BITS;
/// Digits of a `u64`. The top one has four bits.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// How many entries `cancel` looks at to make the bound of a slot exact again.
const REPAIR_STEPS_MAX: usize = 8;

/// The timers of a hub.
pub(crate) struct Timers<T> {
    /// All entries; the lists of the slots are indices into it. They are reused last in, first out.
    entries: Slab<Entry<T>>,
    /// The lists, by level and digit. Boxed, for they are 11 KiB.
    slots: Box<[[Slot; SLOTS]; LEVELS]>,
    /// For each level a bit for every slot that is not empty.
    occupied: [u64; LEVELS],
    /// The time of the last `expire`, which placed the entries: every entry is in the slot `place`
    /// says, always.
    elapsed: u64,
}

/// The name of a timer, with which it can be cancelled. It is stale once the timer has fired or was
/// cancelled, and then finds nothing; see [`Id`] for how long that holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey(Id);

/// One timer: 40 bytes in the slab when `T` has 16.
struct Entry<T> {
    /// What `expire` or `cancel` hands back.
    value: T,
    /// When it is due.
    deadline: u64,
    /// The entry before it in its slot's list, or [`NIL`].
    previous: u32,
    /// The entry after it in its slot's list, or [`NIL`].
    next: u32,
}

/// One list of entries.
#[derive(Copy, Clone)]
struct Slot {
    /// The first entry, or [`NIL`].
    head: u32,
    /// The last entry, or [`NIL`].
    tail: u32,
    /// No deadline in the list is before this one. It is the earliest itself until that is
    /// cancelled out of a long list. It is a deadline that belongs into this slot even then, so
    /// that moving time on to it takes the slot apart. `u64::MAX` when the list is empty.
    earliest: u64,
}

impl Slot {
    /// A slot without entries.
    const EMPTY: Slot = Slot { head: NIL, tail: NIL, earliest: u64::MAX };
}

impl<T> Timers<T> {
    /// No timers, at time 0.
    pub(crate) fn new() -> Self {
        Timers {
            entries: Slab::new(),
            slots: Box::new([[Slot::EMPTY; SLOTS]; LEVELS]),
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }

    /// How many timers are set.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no timer is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets a timer. A deadline in the past is due at the next [`Timers::expire`].
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> TimerKey {
        let id = self.entries.insert(Entry { value, deadline, previous: NIL, next: NIL });
        self.link(id.index(), deadline);
        TimerKey(id)
    }

    /// Unsets a timer and gives its value back, unless it has fired or was cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let entry = self.entries.remove(key.0)?;
        self.unlink(&entry);
        Some(entry.value)
    }

    /// A time before which no timer is due; `None` without timers.
    ///
    /// It is the earliest deadline, but for one case: when that was cancelled while its slot held
    /// many others, it stays the bound. Whoever wakes up for it finds nothing due, but `expire`
    /// then takes that slot apart, so that the next bound is exact: a cancelled timer costs at most
    /// one wake-up for nothing, and most cost none.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let digit = self.occupied[level].trailing_zeros() as usize;
        Some(self.slots[level][digit].earliest)
    }

    /// Moves time on to `now` and appends the timers with `deadline <= now` to `due`, with their
    /// deadlines: in the order of deadlines, and for equal ones in the order of insertion. A `now`
    /// before the last one counts as the last one.
    pub(crate) fn expire(&mut self, now: u64, due: &mut Vec<(u64, T)>) {
        let now = now.max(self.elapsed);
        let (top, digit_now) = place(now, self.elapsed);
        // Entries that are moved from here on are placed by the new time. The slots to empty are
        // known without it.
        self.elapsed = now;
        for level in 0..=top {
            let last = if level < top { SLOTS - 1 } else { digit_now };
            // In the slot of `now` itself, which is the last one to be emptied, are the only
            // entries not to be due. They agree with `now` in digit `top` and above, so they go to
            // levels that this loop has left behind.
            while let Some(digit) = first(self.occupied[level]).filter(|digit| *digit <= last) {
                self.empty(level, digit, due);
            }
        }
    }

    /// Empties a slot: hands out what is due at `elapsed` and places the rest anew.
    fn empty(&mut self, level: usize, digit: usize, due: &mut Vec<(u64, T)>) {
        let mut index = std::mem::replace(&mut self.slots[level][digit], Slot::EMPTY).head;
        self.occupied[level] &= !(1 << digit);
        let start = due.len();
        while index != NIL {
            let entry = self.entries.at_mut(index);
            let (deadline, next) = (entry.deadline, entry.next);
            if deadline <= self.elapsed {
                due.push((deadline, self.entries.remove_at(index).value));
            } else {
                entry.next = NIL;
                self.link(index, deadline);
            }
            index = next;
        }
        // Stable, as the order of equal deadlines is that of the list. Sleepers mostly come in the
        // order of their deadlines, and then this is one pass that finds nothing to do.
        due[start..].sort_by_key(|(deadline, _)| *deadline);
    }

    /// Appends an entry whose `next` is [`NIL`] to the list of its slot.
    fn link(&mut self, index: u32, deadline: u64) {
        let (level, digit) = place(deadline, self.elapsed);
        let slot = &mut self.slots[level][digit];
        let previous = std::mem::replace(&mut slot.tail, index);
        slot.earliest = slot.earliest.min(deadline);
        self.entries.at_mut(index).previous = previous;
        if previous == NIL {
            slot.head = index;
            self.occupied[level] |= 1 << digit;
        } else {
            self.entries.at_mut(previous).next = index;
        }
    }

    /// Takes an entry, which has left the slab already, out of the list of its slot.
    fn unlink(&mut self, entry: &Entry<T>) {
        let (level, digit) = place(entry.deadline, self.elapsed);
        let slot = &mut self.slots[level][digit];
        match entry.previous {
            NIL => slot.head = entry.next,
            previous => self.entries.at_mut(previous).next = entry.next,
        }
        match entry.next {
            NIL => slot.tail = entry.previous,
            next => self.entries.at_mut(next).previous = entry.previous,
        }
        if slot.head == NIL {
            *slot = Slot::EMPTY;
            self.occupied[level] &= !(1 << digit);
        } else if slot.earliest == entry.deadline || slot.head == slot.tail {
            let head = slot.head;
            if let Some(earliest) = self.earliest_of_few(head) {
                self.slots[level][digit].earliest = earliest;
            }
        }
    }

    /// The earliest deadline of a short list; `None` for a long one, which `cancel` has not the
    /// time to walk.
    fn earliest_of_few(&self, head: u32) -> Option<u64> {
        let (mut index, mut earliest) = (head, u64::MAX);
        for _ in 0..REPAIR_STEPS_MAX {
            let entry = self.entries.at(index);
            earliest = earliest.min(entry.deadline);
            index = entry.next;
            if index == NIL {
                return Some(earliest);
            }
        }
        None
    }
}

/// The level and the digit of the slot of a deadline. Past ones are placed as `elapsed` itself is:
/// level 0, and its digit there.
fn place(deadline: u64, elapsed: u64) -> (usize, usize) {
    let time = deadline.max(elapsed);
    // The lowest bit is set so that a time that differs in no digit gets the lowest level.
    let level = ((time ^ elapsed) | 1).ilog2() / DIGIT_BITS;
    let digit = (time >> (level * DIGIT_BITS)) as usize % SLOTS;
    (level as usize, digit)
}

/// The lowest bit that is set.
fn first(bits: u64) -> Option<usize> {
    (bits != 0).then(|| bits.trailing_zeros() as usize)
}
