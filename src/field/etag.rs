//! Entity tags (RFC 9110 section 8.8.3) and the lists of `If-Match` and `If-None-Match`.

/// One entity tag, borrowed from its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Marked `W/`.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads a field value that is one entity tag; `None` for anything else, an unquoted tag included.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::split(value.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// Both are strong and equal (RFC 9110 section 8.8.3.2): for ranges and `If-Match`.
    pub fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Equal but for the weak marks: for `If-None-Match`.
    pub fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    fn split(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, text) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = text.strip_prefix(b"\"")?;
        let end = text.iter().position(|byte| *byte == b'"')?;
        Some((Self { weak, opaque: &text[..end] }, &text[end + 1..]))
    }
}

/// How a list of entity tags is compared with the representation's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// As `If-Match` and `If-Range` require.
    Strong,
    /// As `If-None-Match` requires.
    Weak,
}

/// Whether the list in one field line has `*` or a tag that matches `own`; members that are no tags match nothing.
pub fn matches(list: &[u8], own: Option<EntityTag<'_>>, comparison: Comparison) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    let Some(own) = own else { return false };
    loop {
        while let [b',' | b' ' | b'\t', tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return false;
        }
        match EntityTag::split(rest) {
            Some((tag, tail)) => {
                let equal = match comparison {
                    Comparison::Strong => tag.strong_eq(&own),
                    Comparison::Weak => tag.weak_eq(&own),
                };
                if equal {
                    return true;
                }
                rest = tail;
            }
            None => rest = rest.iter().position(|byte| *byte == b',').map_or(&[], |at| &rest[at..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_table_of_rfc_9110_holds() {
        for (a, b, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
        ] {
            let (a, b) = (EntityTag::parse(a.as_bytes()).unwrap(), EntityTag::parse(b.as_bytes()).unwrap());
            assert_eq!((a.strong_eq(&b), a.weak_eq(&b)), (strong, weak), "{a:?} {b:?}");
        }
        for none in ["1", "\"1", "\"1\"x", "w/\"1\"", ""] {
            assert_eq!(EntityTag::parse(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_list_is_searched_past_what_is_no_tag() {
        let own = EntityTag::parse(b"\"a,b\"");
        assert!(matches(b"junk, W/\"x\",,  \"a,b\"", own, Comparison::Strong));
        assert!(matches(b"W/\"a,b\"", own, Comparison::Weak));
        assert!(!matches(b"W/\"a,b\"", own, Comparison::Strong));
        assert!(matches(b" * ", None, Comparison::Weak));
        assert!(!matches(b"\"a", own, Comparison::Weak));
        assert!(!matches(b"\"a,b\"", None, Comparison::Weak));
    }
}
