//! Texts with variables in them, as in `https://$host/new$path`.

/// A piece of such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Stands for itself; never empty.
    Text(&'t str),
    /// `$$`.
    Dollar,
    /// `$name`: letters, digits and `_`, as many as there are; empty for a `$` that nothing of these follows.
    Variable(&'t str),
    /// `${name}`, whatever stands in the braces.
    Braced(&'t str),
}

/// Splits `text` into its pieces. A `${` that is never closed is a variable without a name.
pub fn pieces(text: &str) -> Pieces<'_> {
    Pieces { rest: text }
}

/// See [`pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let (piece, rest) = match self.rest.find('$') {
            _ if self.rest.is_empty() => return None,
            None => (Piece::Text(self.rest), ""),
            Some(0) => variable(&self.rest[1..]),
            Some(dollar) => {
                let (text, rest) = self.rest.split_at(dollar);
                (Piece::Text(text), rest)
            }
        };
        self.rest = rest;
        Some(piece)
    }
}

/// What stands behind a dollar, and what follows it.
fn variable(after: &str) -> (Piece<'_>, &str) {
    if let Some(rest) = after.strip_prefix('$') {
        return (Piece::Dollar, rest);
    }
    if let Some((name, rest)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (Piece::Braced(name), rest);
    }
    let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
    let (name, rest) = after.split_at(end);
    (Piece::Variable(name), rest)
}

#[cfg(test)]
mod tests {
    use super::Piece::{Braced, Dollar, Text, Variable};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_split_at_their_variables() {
        for (text, expected) in [
            ("", &[][..]),
            ("plain", &[Text("plain")]),
            ("$host", &[Variable("host")]),
            ("a$b_1-c", &[Text("a"), Variable("b_1"), Text("-c")]),
            ("${a}b", &[Braced("a"), Text("b")]),
            ("${}", &[Braced("")]),
            ("${open", &[Variable(""), Text("{open")]),
            ("$$$x", &[Dollar, Variable("x")]),
            ("$", &[Variable("")]),
            ("$é", &[Variable(""), Text("é")]),
        ] {
            assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[a$_{}é ]{0,20}") {
            let joined: String = pieces(&text)
                .map(|piece| match piece {
                    Text(text) => text.to_owned(),
                    Dollar => "$$".to_owned(),
                    Variable(name) => format!("${name}"),
                    Braced(name) => format!("${{{name}}}"),
                })
                .collect();
            prop_assert_eq!(joined, text);
        }
    }
}
