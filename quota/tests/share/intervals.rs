//! A share on a card.

use crate::card::Card;
use crate::case::{Case, Pattern};
use crate::program::Lengths;
use crate::world::{Host, US};

#[test]
fn explore() {
    for card in [Card::H200, Card::H100, Card::SLEEPY, Card::STOPPED] {
        for length in [10, 20, 50, 200] {
            for pattern in [Pattern::Sync(2 * US), Pattern::Ahead(1), Pattern::Ahead(4)] {
                let host = Host { card: Some(card), ..Host::CALM };
                let case = Case {
                    cores: 30,
                    lengths: Lengths::Fixed(length * US),
                    pattern,
                    processes: 1,
                    threads: 1,
                    host,
                    seed: 1,
                };
                let uncapped = case.uncapped();
                let outcome = case.run();
                println!("{length:>4} us {pattern:?} launch {} uncapped {uncapped:.1}: {outcome:.2?}", card.launch);
            }
        }
    }
}
