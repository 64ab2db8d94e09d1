//! A vector of values under generation-tagged ids: the memory of everything the hub can name by a
//! number.
//!
//! An index alone is a bad name, because indices are reused: a late wake-up for greenlet 7 would
//! hit whoever is greenlet 7 by then. So an [`Id`] carries the generation of its place, which
//! changes with every removal, and a stale id finds nothing.
//!
//! Freed places are reused last in, first out: the place freed a moment ago is still in the cache,
//! and small indices stay in use. Memory is never given back: a slab is as long as the most values
//! it ever held.
//!
//! Relies on nothing but `Vec`. It must never run code of its values, except to drop them with the
//! slab itself.

use std::fmt;

/// The index that no value ever has: it ends the list of free places, and any other list a user
/// keeps of indices.
pub(crate) const NIL: u32 = u32::MAX;

/// The name of one value in a [`Slab`].
///
/// A stale id is told from a live one by its generation. The generation of a place wraps after 2^32
/// removals *from that place*: an id that was kept for all of them would be taken for a live one.
/// At ten million removals a second from the same place that is after seven minutes, so an id is
/// kept no longer than the wait it was made for.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    /// Where the value is; never [`NIL`] in an id that a slab has given out.
    index: u32,
    /// Which of the values that have been there it is.
    generation: u32,
}

impl Id {
    /// The place of the value, which is unique among the values of the slab at one time.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// The id as one word: the generation above, the index below.
    ///
    /// Words whose lower half is [`NIL`] are no slab's ids, so a user that mixes ids with other
    /// tokens may use them.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id that [`Id::to_u64`] made this word from. Any word is an id: at worst one that finds
    /// nothing.
    pub(crate) fn from_u64(word: u64) -> Self {
        Id { index: word as u32, generation: (word >> 32) as u32 }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}v{}", self.index, self.generation)
    }
}

/// Values under generation-tagged ids.
pub(crate) struct Slab<T> {
    /// All places, vacant and occupied.
    entries: Vec<Entry<T>>,
    /// The place that was freed last, the head of the list through [`Entry::Vacant`]; [`NIL`] when
    /// all are occupied.
    free: u32,
    /// How many places are occupied.
    len: usize,
}

/// One place. The generation is in both variants, not in a struct around them, so that it shares a
/// word with the enum's tag: a place for a pointer takes 16 bytes that way, and 24 the other way.
enum Entry<T> {
    /// Entered by `remove`, left by `insert`.
    Vacant {
        /// The generation of the *next* value to be put here.
        generation: u32,
        /// The place that was freed before this one, or [`NIL`].
        next_free: u32,
    },
    /// Entered by `insert`, left by `remove`.
    Occupied {
        /// The generation in the value's id.
        generation: u32,
        /// The value.
        value: T,
    },
}

impl<T> Slab<T> {
    /// A slab without values, which has not allocated.
    pub(crate) const fn new() -> Self {
        Slab { entries: Vec::new(), free: NIL, len: 0 }
    }

    /// How many values there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value into the place that was freed last, or into a new one.
    ///
    /// # Panics
    ///
    /// When there are 2^32 - 1 values already.
    pub(crate) fn insert(&mut self, value: T) -> Id {
        self.len += 1;
        if let Some(entry) = self.entries.get_mut(self.free as usize) {
            let Entry::Vacant { generation, next_free } = *entry else {
                unreachable!("an occupied place is in the list of free places");
            };
            let id = Id { index: self.free, generation };
            *entry = Entry::Occupied { generation, value };
            self.free = next_free;
            return id;
        }
        assert!(self.entries.len() < NIL as usize, "a slab holds at most 2^32 - 1 values");
        let id = Id { index: self.entries.len() as u32, generation: 0 };
        self.entries.push(Entry::Occupied { generation: 0, value });
        id
    }

    /// The value of that id, unless the id is stale.
    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        match self.entries.get(id.index as usize) {
            Some(Entry::Occupied { generation, value }) if *generation == id.generation => {
                Some(value)
            }
            _ => None,
        }
    }

    /// The value of that id, unless the id is stale.
    #[cfg(test)]
    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.entries.get_mut(id.index as usize) {
            Some(Entry::Occupied { generation, value }) if *generation == id.generation => {
                Some(value)
            }
            _ => None,
        }
    }

    /// Takes the value of that id out, unless the id is stale. All copies of the id are stale from
    /// here on.
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.remove_at(id.index))
    }

    /// The value at an index that is known to be occupied: a link of a list whose members are all
    /// in the slab.
    ///
    /// # Panics
    ///
    /// When the place is vacant.
    pub(crate) fn at(&self, index: u32) -> &T {
        match &self.entries[index as usize] {
            Entry::Occupied { value, .. } => value,
            Entry::Vacant { .. } => vacant(index),
        }
    }

    /// As [`Slab::at`], to change the value.
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut T {
        match &mut self.entries[index as usize] {
            Entry::Occupied { value, .. } => value,
            Entry::Vacant { .. } => vacant(index),
        }
    }

    /// As [`Slab::at`], to take the value out.
    pub(crate) fn remove_at(&mut self, index: u32) -> T {
        let entry = &mut self.entries[index as usize];
        let generation = match entry {
            Entry::Occupied { generation, .. } => generation.wrapping_add(1),
            Entry::Vacant { .. } => vacant(index),
        };
        let vacated = Entry::Vacant { generation, next_free: self.free };
        let Entry::Occupied { value, .. } = std::mem::replace(entry, vacated) else {
            vacant(index)
        };
        self.free = index;
        self.len -= 1;
        value
    }

    /// All values with their ids, in the order of their indices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        (0..).zip(&self.entries).filter_map(|(index, entry)| match entry {
            Entry::Occupied { generation, value } => {
                Some((Id { index, generation: *generation }, value))
            }
            Entry::Vacant { .. } => None,
        })
    }
}

/// Out of line, so that the callers' fast paths stay a compare and a load.
#[cold]
fn vacant(index: u32) -> ! {
    panic!("place {index} of the slab is vacant, but a list leads to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Slab<T> {
        /// What one place costs, for the tests of those who count it.
        pub(crate) const PLACE_BYTES: usize = size_of::<Entry<T>>();
    }

    #[test]
    fn values_are_found_by_id_until_removed() {
        let mut slab = Slab::new();
        assert!(slab.is_empty());
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_eq!((slab.get(a), slab.get(b), slab.len()), (Some(&"a"), Some(&"b"), 2));
        *slab.get_mut(a).unwrap() = "A";
        assert_eq!(slab.remove(a), Some("A"));
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!((slab.get(b), slab.len()), (Some(&"b"), 1));
    }

    #[test]
    fn a_stale_id_does_not_find_the_next_value_in_its_place() {
        let mut slab = Slab::new();
        let stale = slab.insert(1);
        slab.remove(stale);
        let live = slab.insert(2);
        assert_eq!(live.index(), stale.index());
        assert_ne!(live, stale);
        assert_eq!(slab.get(stale), None);
        assert_eq!(slab.remove(stale), None);
        assert_eq!(slab.get(live), Some(&2));
    }

    #[test]
    fn ids_of_another_or_no_slab_find_nothing() {
        let mut slab = Slab::new();
        slab.insert(());
        for word in [1, 1 << 32, u64::from(NIL), u64::MAX] {
            assert_eq!(slab.get(Id::from_u64(word)), None);
            assert_eq!(slab.remove(Id::from_u64(word)), None);
        }
    }

    #[test]
    fn places_are_reused_last_in_first_out() {
        let mut slab = Slab::new();
        let ids: Vec<Id> = (0..4).map(|value| slab.insert(value)).collect();
        for id in [ids[2], ids[0], ids[3]] {
            slab.remove(id);
        }
        let reused: Vec<u32> = (0..4).map(|value| slab.insert(value).index()).collect();
        assert_eq!(reused, [3, 0, 2, 4]);
    }

    #[test]
    fn generations_wrap() {
        let mut slab = Slab::new();
        let id = slab.insert(1);
        slab.entries[0] = Entry::Occupied { generation: u32::MAX, value: 1 };
        let last = Id { generation: u32::MAX, ..id };
        assert_eq!(slab.remove(last), Some(1));
        assert_eq!(slab.insert(2), id);
    }

    #[test]
    fn an_id_survives_the_way_through_a_word() {
        let mut slab = Slab::new();
        slab.insert(0);
        for _ in 0..3 {
            let id = slab.insert(7);
            assert_eq!(Id::from_u64(id.to_u64()), id);
            slab.remove(id);
        }
        assert_eq!(Id { index: 1, generation: 2 }.to_u64(), 0x2_0000_0001);
    }

    #[test]
    fn iteration_skips_vacant_places() {
        let mut slab = Slab::new();
        let ids: Vec<Id> = (10..14).map(|value| slab.insert(value)).collect();
        slab.remove(ids[1]);
        let seen: Vec<(Id, i32)> = slab.iter().map(|(id, value)| (id, *value)).collect();
        assert_eq!(seen, [(ids[0], 10), (ids[2], 12), (ids[3], 13)]);
    }

    #[test]
    #[should_panic(expected = "place 0 of the slab is vacant")]
    fn a_list_that_leads_to_a_vacant_place_is_a_bug() {
        let mut slab = Slab::new();
        let id = slab.insert(());
        slab.remove(id);
        slab.at(0);
    }

    #[test]
    fn a_place_for_a_pointer_takes_two_words() {
        assert_eq!(size_of::<Entry<u64>>(), 16);
        assert_eq!(size_of::<Entry<Box<u64>>>(), 16);
    }
}
