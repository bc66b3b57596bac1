//! Sitemaps: only what their `loc` elements say, and whether they name pages or further sitemaps.

/// What a sitemap names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sitemap {
    /// URLs in the order of the file.
    pub locations: Vec<String>,
    /// They are of sitemaps.
    pub is_index: bool,
}

/// Reads a sitemap or an index of sitemaps (sitemaps.org, protocol 0.9).
pub(super) fn read(bytes: &[u8]) -> Result<Sitemap, &'static str> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err("it is compressed; name one that is not");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let text = without_comments(text);
    let is_index = text.contains("<sitemapindex");
    if !is_index && !text.contains("<urlset") {
        return Err("it has neither <urlset> nor <sitemapindex>");
    }
    let mut locations = Vec::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find("<loc") {
        rest = &rest[start + "<loc".len()..];
        // `<location>` is none.
        let Some(body) = rest.trim_start().strip_prefix('>') else { continue };
        let end = body.find("</loc").ok_or("a <loc> has no end")?;
        locations.push(decoded(body[..end].trim()));
        rest = &body[end..];
    }
    Ok(Sitemap { locations, is_index })
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        out.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    out + rest
}

/// The text of an element: a CDATA section, or with XML's five entities and numeric references.
fn decoded(text: &str) -> String {
    if let Some(plain) = text.strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>")) {
        return plain.trim().to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        match after.split_once(';').and_then(|(name, after)| Some((entity(name)?, after))) {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn locations_are_found_and_decoded() {
        let text = "<?xml version=\"1.0\"?><urlset xmlns:image=\"i\"><!-- <loc>https://a/no</loc> -->\
            <url><loc> https://a/?b=1&amp;c=&#50; </loc><image:loc>https://a/no.png</image:loc></url>\
            <url><loc\n><![CDATA[https://a/x&y]]></loc></url><url><loc>https://a/&unknown;</loc></url></urlset>";
        let expected = ["https://a/?b=1&c=2", "https://a/x&y", "https://a/&unknown;"];
        let read = read(text.as_bytes()).unwrap();
        assert_eq!((read.locations, read.is_index), (expected.map(str::to_owned).to_vec(), false));
    }

    #[test]
    fn an_index_is_told_from_a_sitemap() {
        let text = "<sitemapindex><sitemap><loc>https://a/1.xml</loc></sitemap></sitemapindex>";
        assert!(read(text.as_bytes()).unwrap().is_index);
        for wrong in ["<html></html>", "<urlset><loc>https://a/", "\u{1f}\u{8b}"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(&[0x1f, 0x8b, 8]).is_err() && read(&[0xff, 0xfe]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(<urlset>|<loc>|</loc|<!--|-->|&|;|#x?[0-9a-f]{0,9}|amp|ü|<!\\[CDATA\\[){0,20}") {
            let _ = read(text.as_bytes());
        }
    }
}
