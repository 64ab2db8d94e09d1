//! Two things at once: one greenlet eats, one plays, and both sleep with plain
//! `std::thread::sleep`. It takes two seconds, not three.
//!
//! ```text
//! cargo run --example eat_play
//! ```

use std::thread::sleep;
use std::time::Duration;

fn eat() {
    println!("eat food 1");
    sleep(Duration::from_secs(2));
    println!("eat food 2");
}

fn play() {
    println!("play 1");
    sleep(Duration::from_secs(1));
    println!("play 2");
}

fn main() {
    greenling::monkey::patch_all();
    greenling::joinall(&[greenling::spawn(eat), greenling::spawn(play)]);
    println!("end");
}
