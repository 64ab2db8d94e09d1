//! Three greenlets count to two, with a second of plain `std::thread::sleep` in between. All three
//! say "One" before any says "Two", and together they take one second.
//!
//! ```text
//! cargo run --example count
//! ```

use std::thread::sleep;
use std::time::{Duration, Instant};

fn count() {
    println!("One");
    sleep(Duration::from_secs(1));
    println!("Two");
}

fn main() {
    greenling::monkey::patch_all();
    let start = Instant::now();
    greenling::joinall(&[(); 3].map(|()| greenling::spawn(count)));
    println!("count took {:.2} seconds.", start.elapsed().as_secs_f64());
}
