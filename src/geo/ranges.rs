//! A value for each address, as the addresses at which it changes.

use std::fmt::Debug;

/// An address as a number.
pub trait Address: Copy + Ord + Debug {
    /// Bits of an address.
    const WIDTH: u8;
    /// The lowest address.
    const MIN: Self;
    /// The address after; `None` after the last.
    fn successor(self) -> Option<Self>;
    /// The address before; `None` before the first.
    fn predecessor(self) -> Option<Self>;
    /// Leading bits that are the same.
    fn common(self, other: Self) -> u8;
    /// With all bits after the first `length` cleared.
    fn network(self, length: u8) -> Self;
    /// The first 16 bits.
    fn high(self) -> usize;
    /// Eight bytes that tell prefixes of up to 64 bits from each other.
    fn leading(self) -> u64;
}

macro_rules! address {
    ($number:ty) => {
        impl Address for $number {
            const WIDTH: u8 = <$number>::BITS as u8;
            const MIN: Self = 0;

            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn predecessor(self) -> Option<Self> {
                self.checked_sub(1)
            }

            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn network(self, length: u8) -> Self {
                match length {
                    0 => 0,
                    length => self & (<$number>::MAX << (Self::WIDTH - length.min(Self::WIDTH))),
                }
            }

            fn high(self) -> usize {
                (self >> (Self::WIDTH - 16)) as usize
            }

            fn leading(self) -> u64 {
                match Self::WIDTH {
                    32 => (self as u64) << 32,
                    _ => ((self as u128) >> 64) as u64,
                }
            }
        }
    };
}

address!(u32);
address!(u128);

/// Below this a search needs no index.
const INDEXED: usize = 1024;

/// A value for each address. Neighbouring ranges differ, so that a range is as wide as its value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<A> {
    /// Where ranges begin, ascending; the first is the lowest address.
    starts: Vec<A>,
    values: Vec<u32>,
    /// For each value of the first 16 bits the first range that begins there or later; then the number of ranges.
    index: Vec<u32>,
}

impl<A: Address> Ranges<A> {
    /// One value for all addresses.
    pub fn constant(value: u32) -> Self {
        Self { starts: vec![A::MIN], values: vec![value], index: Vec::new() }
    }

    /// From ranges (first address, last address, value) of which two are disjoint or one contains the other: the inner
    /// one counts, of equal ones the last. Elsewhere the value is `outside`.
    pub fn from_nested(mut ranges: Vec<(A, A, u32)>, outside: u32) -> Self {
        ranges.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut out = Writer::new(outside);
        let mut open: Vec<(A, u32)> = Vec::new();
        let close = |open: &mut Vec<(A, u32)>, out: &mut Writer<A>| {
            if let Some((end, _)) = open.pop()
                && let Some(next) = end.successor()
            {
                out.push(next, open.last().map_or(outside, |(_, value)| *value));
            }
        };
        for (start, end, value) in ranges {
            while open.last().is_some_and(|(last, _)| *last < start) {
                close(&mut open, &mut out);
            }
            out.push(start, value);
            open.push((end, value));
        }
        while !open.is_empty() {
            close(&mut open, &mut out);
        }
        out.finish()
    }

    /// The value at an address, and the length of the widest prefix around it that has this value throughout.
    pub fn find(&self, address: A) -> (u32, u8) {
        let at = self.position(address);
        // Both neighbours have other values: the prefix is the shortest that contains neither.
        let before = self.starts.get(at).and_then(|start| start.predecessor()).map(|a| address.common(a) + 1);
        let after = self.starts.get(at + 1).map(|a| address.common(*a) + 1);
        (self.values.get(at).copied().unwrap_or(0), before.max(after).unwrap_or(0))
    }

    /// Whether the value is the same throughout a prefix.
    pub fn is_uniform(&self, network: A, length: u8) -> bool {
        self.find(network).1 <= length
    }

    /// Each value replaced; ranges that become equal are one.
    pub fn map(&self, value: impl Fn(u32) -> u32) -> Self {
        let mut out = Writer::new(self.values.first().map_or(0, |first| value(*first)));
        for (start, old) in self.starts.iter().zip(&self.values) {
            out.push(*start, value(*old));
        }
        out.finish()
    }

    /// The values of both put together.
    pub fn combine(&self, other: &Self, mut value: impl FnMut(u32, u32) -> u32) -> Self {
        let (mut a, mut b) = (0, 0);
        let mut current = |a: usize, b: usize| {
            value(self.values.get(a).copied().unwrap_or(0), other.values.get(b).copied().unwrap_or(0))
        };
        let mut out = Writer::new(current(0, 0));
        loop {
            let next = match (self.starts.get(a + 1), other.starts.get(b + 1)) {
                (None, None) => return out.finish(),
                (Some(x), None) => *x,
                (None, Some(y)) => *y,
                (Some(x), Some(y)) => *x.min(y),
            };
            a += usize::from(self.starts.get(a + 1) == Some(&next));
            b += usize::from(other.starts.get(b + 1) == Some(&next));
            out.push(next, current(a, b));
        }
    }

    /// Ranges, at least one.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// First address and value of each range.
    pub fn iter(&self) -> impl Iterator<Item = (A, u32)> + '_ {
        self.starts.iter().copied().zip(self.values.iter().copied())
    }

    fn position(&self, address: A) -> usize {
        let (from, to) = match self.index.get(address.high()..address.high() + 2) {
            Some(&[from, to]) => (from as usize, to as usize),
            _ => (0, self.starts.len()),
        };
        let begun = self.starts.get(from..to).unwrap_or_default().partition_point(|start| *start <= address);
        (from + begun).saturating_sub(1)
    }
}

struct Writer<A> {
    starts: Vec<A>,
    values: Vec<u32>,
}

impl<A: Address> Writer<A> {
    fn new(first: u32) -> Self {
        Self { starts: vec![A::MIN], values: vec![first] }
    }

    /// From `start` on the value is this; `start` never goes back.
    fn push(&mut self, start: A, value: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    fn finish(self) -> Ranges<A> {
        let Self { mut starts, mut values } = self;
        starts.shrink_to_fit();
        values.shrink_to_fit();
        let mut index = Vec::new();
        if starts.len() >= INDEXED {
            let mut at = 0;
            for high in 0..1 << 16 {
                while starts.get(at).is_some_and(|start| start.high() < high) {
                    at += 1;
                }
                index.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
            index.push(u32::try_from(starts.len()).unwrap_or(u32::MAX));
        }
        Ranges { starts, values, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Networks as (address, length, value), in the first 2^8 addresses so that they meet.
    fn networks() -> impl Strategy<Value = Vec<(u32, u8, u32)>> {
        prop::collection::vec((any::<u8>(), 24_u8..=32, 1_u32..5), 0..60)
            .prop_map(|all| all.into_iter().map(|(a, length, v)| (u32::from(a).network(length), length, v)).collect())
    }

    fn ranges(networks: &[(u32, u8, u32)]) -> Ranges<u32> {
        let last = |start: u32, length: u8| start | u32::MAX.checked_shr(length.into()).unwrap_or(0);
        Ranges::from_nested(networks.iter().map(|(a, l, v)| (*a, last(*a, *l), *v)).collect(), 0)
    }

    fn expected(networks: &[(u32, u8, u32)], address: u32) -> u32 {
        let inside = networks.iter().enumerate().filter(|(_, (a, length, _))| address.network(*length) == *a);
        inside.max_by_key(|(n, (_, length, _))| (*length, *n)).map_or(0, |(_, (_, _, value))| *value)
    }

    proptest! {
        #[test]
        fn the_longest_prefix_decides_and_the_scope_is_the_widest(networks in networks(), asked in prop::collection::vec(any::<u8>(), 1..20)) {
            let table = ranges(&networks);
            for address in asked.into_iter().map(u32::from) {
                let (value, length) = table.find(address);
                prop_assert_eq!(value, expected(&networks, address));
                let same = |length: u8| {
                    let start = address.network(length);
                    (0..1_u64 << (32 - length.max(24))).all(|n| expected(&networks, start + n as u32) == value)
                        && (length >= 24 || value == 0 && networks.is_empty())
                };
                prop_assert!(length < 24 || same(length), "{address:#x}/{length}");
                prop_assert!(length == 0 || !same(length - 1), "{address:#x}/{length} is too long");
            }
        }

        #[test]
        fn tables_are_combined_address_by_address(a in networks(), b in networks(), asked in prop::collection::vec(any::<u8>(), 1..20)) {
            let (one, two) = (ranges(&a), ranges(&b));
            let both = one.combine(&two, |x, y| if y == 0 { x } else { y + 10 });
            let mapped = one.map(|value| value / 2);
            for address in asked.into_iter().map(u32::from) {
                let (x, y) = (expected(&a, address), expected(&b, address));
                prop_assert_eq!(both.find(address).0, if y == 0 { x } else { y + 10 });
                prop_assert_eq!(mapped.find(address).0, x / 2);
            }
            let differ = |table: &Ranges<u32>| table.values.windows(2).all(|pair| pair[0] != pair[1]);
            prop_assert!(differ(&both) && differ(&mapped));
        }
    }

    #[test]
    fn a_large_table_is_searched_by_its_index() {
        let networks: Vec<(u32, u32, u32)> = (0..70_000_u32).map(|n| (n << 13, n << 13 | 0xff, n + 1)).collect();
        let table = Ranges::from_nested(networks, 0);
        assert!(!table.index.is_empty());
        for n in (0..70_000).step_by(7) {
            assert_eq!(table.find(n << 13), (n + 1, 24));
            assert_eq!(table.find(n << 13 | 0xff).0, n + 1);
            assert_eq!(table.find(n << 13 | 0x100), (0, 24));
            assert_eq!(table.find(n << 13 | 0x1fff).0, 0);
        }
        assert_eq!(table.find(u32::MAX), (0, 1));
        assert_eq!(Ranges::<u128>::constant(3).find(1), (3, 0));
    }
}
