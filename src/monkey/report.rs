//! What is covered: the table of shims as text.

use std::fmt;

use greenling_shims::check::{self, Binding};
use greenling_shims::{Category, TABLE};

/// What is patched, to be printed.
///
/// # Examples
///
/// ```
/// greenling::monkey::patch_all();
/// let report = greenling::monkey::report().to_string();
/// assert!(report.contains("clock_nanosleep"));
/// ```
pub fn report() -> Report {
    Report { bindings: check::bindings().collect() }
}

/// What [`report`] found. Its `Display` is a table: a line for each symbol with its category,
/// whether that is patched, and what the shim does.
#[derive(Debug)]
pub struct Report {
    /// Each symbol and where its calls end up, in the order of the table.
    bindings: Vec<(&'static str, Binding)>,
}

impl Report {
    /// The symbols whose calls are not all patched, because something else defines them.
    pub fn unbound(&self) -> impl Iterator<Item = &'static str> {
        self.bindings
            .iter()
            .filter(|(_, binding)| *binding != Binding::Bound)
            .map(|&(name, _)| name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18} {:<8} {:<8} what the shim does", "symbol", "category", "patched")?;
        for (symbol, (name, binding)) in TABLE.iter().zip(&self.bindings) {
            let category = symbol.category;
            let patched = if greenling_shims::is_patched(category) { "yes" } else { "no" };
            write!(f, "{name:<18} {:<8} {patched:<8} {}", category_name(category), symbol.doc)?;
            if *binding != Binding::Bound {
                write!(f, " BUT {binding}")?;
            }
            writeln!(f)?;
        }
        f.write_str(
            "not covered: system calls made by hand (rustix, Go), regular files, and what libc \
             calls inside itself",
        )
    }
}

/// gevent's name of a category.
fn category_name(category: Category) -> &'static str {
    match category {
        Category::Socket => "socket",
        Category::Time => "time",
        Category::Dns => "dns",
        Category::Select => "select",
        Category::Thread => "thread",
    }
}
