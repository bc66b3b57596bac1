//! One site's routes by path.

use super::PathPattern;
use regex::Regex;
use std::sync::Arc;

/// The routes of one site. A look-up tries the regexes in order, then finds the longest prefix by one binary search.
#[derive(Debug)]
pub(super) struct PathTable<T> {
    regexes: Vec<(Regex, T)>,
    /// Sorted by text.
    prefixes: Vec<Prefix<T>>,
}

#[derive(Debug)]
struct Prefix<T> {
    text: Arc<str>,
    /// The longest other prefix that this one starts with: where to go on when this one does not match.
    parent: Option<usize>,
    route: T,
}

impl<T> PathTable<T> {
    /// Builds the table; `twice(first, second, pattern)` hears of each route that repeats an earlier one's pattern,
    /// by their places in `routes`, and could never be reached.
    pub(super) fn build(routes: Vec<(PathPattern, T)>, mut twice: impl FnMut(usize, usize, String)) -> Self {
        let mut seen = std::collections::HashMap::new();
        let mut regexes = Vec::new();
        let mut prefixes = Vec::new();
        for (place, (pattern, route)) in routes.into_iter().enumerate() {
            let text = pattern.to_string();
            if let Some(first) = seen.get(&text) {
                twice(*first, place, text);
                continue;
            }
            seen.insert(text, place);
            match pattern {
                PathPattern::Regex(regex) => regexes.push((regex, route)),
                PathPattern::Prefix(text) => prefixes.push(Prefix { text, parent: None, route }),
            }
        }
        prefixes.sort_by(|a, b| a.text.cmp(&b.text));
        for place in 1..prefixes.len() {
            let text = Arc::clone(&prefixes[place].text);
            prefixes[place].parent = longest(&prefixes, Some(place - 1), &text);
        }
        Self { regexes, prefixes }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.regexes.iter().map(|(_, route)| route).chain(self.prefixes.iter().map(|prefix| &prefix.route))
    }

    /// Every route that takes the path; the first is the one that is found.
    pub(super) fn all(&self, path: &str) -> impl Iterator<Item = &T> {
        let regexes = self.regexes.iter().filter(move |(regex, _)| regex.is_match(path)).map(|(_, route)| route);
        let candidate = self.prefixes.partition_point(|prefix| prefix.text.as_ref() <= path).checked_sub(1);
        let first = longest(&self.prefixes, candidate, path);
        let prefixes = std::iter::successors(first, |place| self.prefixes[*place].parent);
        regexes.chain(prefixes.map(|place| &self.prefixes[place].route))
    }

    pub(super) fn find(&self, path: &str) -> Option<&T> {
        if let Some((_, route)) = self.regexes.iter().find(|(regex, _)| regex.is_match(path)) {
            return Some(route);
        }
        // The greatest text not above the path either is the longest prefix or starts with it: all texts between a
        // prefix of the path and the path itself start with that prefix.
        let candidate = self.prefixes.partition_point(|prefix| prefix.text.as_ref() <= path).checked_sub(1);
        longest(&self.prefixes, candidate, path).map(|place| &self.prefixes[place].route)
    }
}

fn longest<T>(prefixes: &[Prefix<T>], mut candidate: Option<usize>, path: &str) -> Option<usize> {
    while let Some(place) = candidate {
        if path.starts_with(prefixes[place].text.as_ref()) {
            return candidate;
        }
        candidate = prefixes[place].parent;
    }
    None
}
