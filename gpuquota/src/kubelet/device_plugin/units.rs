//! Units of cards as the kubelet counts them: each has a name that says of which card it is.

use crate::changes::digest;
use crate::kubelet::cards::Piece;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Letters of a card's name where names are short.
const SHORT: usize = 6;

/// What a unit is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Memory.
    Memory,
    /// A percent of a card's time.
    Cores,
    /// A seat at a card, as HAMi counts them.
    Seat,
}

impl Kind {
    /// The letter in the names of its units.
    fn letter(self) -> char {
        match self {
            Self::Memory => 'm',
            Self::Cores => 'c',
            Self::Seat => 's',
        }
    }
}

/// Where a container is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Placement {
    /// On the fullest card that has room, so that others stay free for larger ones.
    #[default]
    Pack,
    /// On the emptiest card.
    Spread,
}

/// What is wished of a card.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub placement: Placement,
    /// The card of what was allocated just before, most likely for the same container.
    pub hint: Option<String>,
    /// Cards of which another kind has no unit left.
    pub full: BTreeSet<String>,
}

/// How the units of one kind are counted and named.
#[derive(Clone, Debug)]
pub struct Units {
    pub kind: Kind,
    /// Bytes of one unit of memory; how many seats a card has.
    pub size: u64,
    /// Whether names are short, so that many of them fit into one message.
    pub is_short: bool,
}

/// Why units are refused that the kubelet has chosen.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nobody knows one of them.
    Unknown(String),
    /// They are of several cards.
    Several(Vec<(String, usize)>),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "no card of this node has a unit {:?}", name.escape_debug().to_string())
            }
            Self::Several(cards) => {
                let all: usize = cards.iter().map(|(_, count)| count).sum();
                let of: Vec<_> = cards.iter().map(|(card, count)| format!("{count} of {card}")).collect();
                write!(
                    f,
                    "no card of this node has {all} units free; the kubelet counts them by node and chose {}. \
                     Ask for less, or for several containers",
                    of.join(" and ")
                )
            }
        }
    }
}

impl Units {
    /// How many a card has.
    pub fn of(&self, piece: &Piece) -> u64 {
        match self.kind {
            Kind::Memory => piece.memory / self.size,
            Kind::Cores => 100,
            Kind::Seat => self.size,
        }
    }

    /// What the names of a card's units begin with.
    fn card(&self, piece: &Piece) -> String {
        // A kubelet takes names of up to 63 bytes, and NVIDIA's exporter knows cards by what stands before two colons.
        match self.is_short {
            true => digest(piece.uuid.as_bytes()).chars().take(SHORT).collect(),
            false => format!("{}::", piece.uuid),
        }
    }

    /// Two cards that would have the same names.
    pub fn twins<'p>(&self, pieces: &'p [Piece]) -> Option<(&'p Piece, &'p Piece)> {
        let mut known: BTreeMap<String, &Piece> = BTreeMap::new();
        pieces.iter().find_map(|piece| Some((known.insert(self.card(piece), piece)?, piece)))
    }

    /// The names of all units of a card.
    pub fn names(&self, piece: &Piece) -> impl Iterator<Item = String> {
        let (card, letter) = (self.card(piece), self.kind.letter());
        (0..self.of(piece)).map(move |number| format!("{card}{letter}{number}"))
    }

    /// The cards by what the names of their units begin with.
    fn cards<'p>(&self, pieces: &'p [Piece]) -> Vec<(String, &'p Piece)> {
        pieces.iter().map(|piece| (self.card(piece), piece)).collect()
    }

    /// The card of a unit.
    fn of_unit<'p>(&self, name: &str, cards: &[(String, &'p Piece)]) -> Option<&'p Piece> {
        let found = cards.iter().find(|(card, piece)| {
            let number =
                name.strip_prefix(card.as_str()).and_then(|rest| rest.strip_prefix(self.kind.letter()));
            number.and_then(|number| number.parse().ok()).is_some_and(|number: u64| number < self.of(piece))
        });
        found.map(|(_, piece)| *piece)
    }

    /// How many of these units each card has, by its UUID.
    pub fn count<'p>(
        &self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
        pieces: &'p [Piece],
    ) -> BTreeMap<&'p str, u64> {
        let (cards, mut counts) = (self.cards(pieces), BTreeMap::new());
        for name in names {
            if let Some(piece) = self.of_unit(name.as_ref(), &cards) {
                *counts.entry(piece.uuid.as_str()).or_default() += 1;
            }
        }
        counts
    }

    /// The one card that all of these are of.
    pub fn one_card<'p>(&self, names: &[String], pieces: &'p [Piece]) -> Result<&'p Piece, Unfit> {
        let (known, mut cards) = (self.cards(pieces), BTreeMap::<&str, (&Piece, usize)>::new());
        for name in names {
            let piece = self.of_unit(name, &known).ok_or_else(|| Unfit::Unknown(name.clone()))?;
            cards.entry(&piece.uuid).or_insert((piece, 0)).1 += 1;
        }
        let mut found = cards.values();
        match (found.next(), found.next()) {
            (Some((piece, _)), None) => Ok(piece),
            (None, _) => Err(Unfit::Unknown(String::new())),
            _ => Err(Unfit::Several(
                cards.into_values().map(|(piece, count)| (piece.name.clone(), count)).collect(),
            )),
        }
    }

    /// Which units it should be: all of one card.
    pub fn prefer(
        &self,
        available: &[String],
        must: &[String],
        count: usize,
        pieces: &[Piece],
        wish: &Wish,
    ) -> Vec<String> {
        let cards = self.cards(pieces);
        let mut by_card: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
        for name in available.iter().chain(must) {
            if let Some(piece) = self.of_unit(name, &cards) {
                by_card.entry(&piece.uuid).or_default().insert(name);
            }
        }
        let has =
            |names: &BTreeSet<&String>| names.len() >= count && must.iter().all(|name| names.contains(name));
        let fitting = by_card.iter().filter(|(_, names)| has(names));
        let hinted = wish.hint.as_deref().and_then(|hint| by_card.get(hint)).filter(|names| has(names));
        let chosen = hinted.or_else(|| {
            // One that is full of another kind is better than none: the container may not ask for that.
            let cost = |names: &BTreeSet<&String>| match wish.placement {
                Placement::Pack => names.len(),
                Placement::Spread => usize::MAX - names.len(),
            };
            let best = fitting.min_by_key(|(uuid, names)| (wish.full.contains(**uuid), cost(names)));
            best.map(|(_, names)| names)
        });
        // Where no card has so many, Allocate says so; the kubelet wants an answer of the right length.
        let all: BTreeSet<&String> = by_card.values().flatten().copied().collect();
        let rest = chosen.unwrap_or(&all).iter().copied().filter(|name| !must.contains(name));
        must.iter().chain(rest).take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn card(number: u32, gib: u64) -> Piece {
        Piece {
            name: format!("gpu-{number}"),
            uuid: format!("GPU-513dc0da-2330-4000-8000-{number:012x}"),
            index: number,
            memory: gib * GIB + 123,
            is_shared: true,
            attributes: BTreeMap::new(),
            trouble: None,
        }
    }

    fn memory(is_short: bool) -> Units {
        Units { kind: Kind::Memory, size: GIB, is_short }
    }

    #[test]
    fn a_unit_says_of_which_card_it_is_and_no_other_name_does() {
        let cards = [card(0, 4), card(1, 2)];
        for is_short in [false, true] {
            let units = memory(is_short);
            let find = |name: &str| units.of_unit(name, &units.cards(&cards));
            let names: Vec<_> = cards.iter().flat_map(|card| units.names(card)).collect();
            assert_eq!(names.len(), 6);
            assert!(names.iter().all(|name| name.len() <= 63));
            for name in &names[..4] {
                assert_eq!(find(name), Some(&cards[0]), "{name}");
            }
            let other = |end: &str| names[0].trim_end_matches("m0").to_owned() + end;
            assert_eq!(find(&other("m4")), None);
            assert_eq!(find(&other("c0")), None);
            assert_eq!(find(""), None);
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 6);
            assert_eq!(units.twins(&cards), None);
            assert!(units.twins(&[card(0, 1), card(0, 2)]).is_some());
        }
    }

    #[test]
    fn units_of_several_cards_are_refused_in_words() {
        let cards = [card(0, 4), card(1, 2)];
        let units = memory(false);
        let mut names: Vec<_> = units.names(&cards[0]).collect();
        assert_eq!(units.one_card(&names, &cards), Ok(&cards[0]));
        names.extend(units.names(&cards[1]).take(1));
        let told = units.one_card(&names, &cards).expect_err("two cards").to_string();
        assert!(told.contains("5 units") && told.contains("4 of gpu-0 and 1 of gpu-1"), "{told}");
        assert!(units.one_card(&["x".to_owned()], &cards).is_err());
    }

    #[test]
    fn packing_takes_the_fullest_card_with_room_and_spreading_the_emptiest() {
        let cards = [card(0, 8), card(1, 8)];
        let units = memory(false);
        // Three units are free on the first card, eight on the second.
        let free: Vec<_> = units.names(&cards[0]).take(3).chain(units.names(&cards[1])).collect();
        let on = |count, placement, hint: Option<&str>| {
            let wish = Wish { placement, hint: hint.map(str::to_owned), ..Wish::default() };
            let names = units.prefer(&free, &[], count, &cards, &wish);
            assert_eq!(names.len(), count);
            units.one_card(&names, &cards).ok().map(|card| card.name.clone())
        };
        assert_eq!(on(2, Placement::Pack, None).as_deref(), Some("gpu-0"));
        assert_eq!(on(4, Placement::Pack, None).as_deref(), Some("gpu-1"));
        assert_eq!(on(2, Placement::Spread, None).as_deref(), Some("gpu-1"));
        assert_eq!(on(2, Placement::Pack, Some(&cards[1].uuid)).as_deref(), Some("gpu-1"));
        assert_eq!(on(4, Placement::Pack, Some(&cards[0].uuid)).as_deref(), Some("gpu-1"));
        assert_eq!(on(9, Placement::Pack, None), None);
        let full = Wish { full: [cards[0].uuid.clone()].into(), ..Wish::default() };
        let beside = |count: usize, wish: &Wish| {
            units.one_card(&units.prefer(&free, &[], count, &cards, wish), &cards).map(|card| card.index)
        };
        assert_eq!(beside(2, &full), Ok(1), "there is no time left on the first card");
        let both = Wish { full: cards.iter().map(|card| card.uuid.clone()).collect(), ..Wish::default() };
        assert_eq!(beside(2, &both), Ok(0));
    }

    proptest! {
        // A kubelet gives units of a node away by these preferences, and takes them back. A model counts by card.
        #[test]
        fn what_fits_on_a_card_is_placed_on_one_and_no_unit_is_given_twice(
            sizes in prop::collection::vec(1u64..12, 1..4),
            steps in prop::collection::vec((any::<bool>(), 1usize..14, any::<usize>()), 1..40),
            spread in any::<bool>(),
        ) {
            let cards: Vec<_> = sizes.iter().enumerate().map(|(at, size)| card(at as u32, *size)).collect();
            let units = memory(false);
            let placement = if spread { Placement::Spread } else { Placement::Pack };
            let mut free: BTreeSet<String> = cards.iter().flat_map(|card| units.names(card)).collect();
            let mut left: Vec<usize> = sizes.iter().map(|size| *size as usize).collect();
            let mut held: Vec<(usize, Vec<String>)> = Vec::new();
            for (takes, count, which) in steps {
                if takes {
                    let available: Vec<_> = free.iter().cloned().collect();
                    let names = units.prefer(&available, &[], count, &cards, &Wish { placement, ..Wish::default() });
                    let fits = left.iter().any(|left| *left >= count);
                    let one = units.one_card(&names, &cards).ok().filter(|_| names.len() == count);
                    prop_assert_eq!(one.is_some(), fits, "{} of {:?}", count, left);
                    let Some(one) = one else { continue };
                    let at = one.index as usize;
                    left[at] -= count;
                    for name in &names {
                        prop_assert!(free.remove(name), "{name} is given twice");
                    }
                    held.push((at, names));
                } else if !held.is_empty() {
                    let (at, names) = held.swap_remove(which % held.len());
                    left[at] += names.len();
                    free.extend(names);
                }
            }
        }
    }
}
