//! Sitemaps: only what their `loc` elements say, and whether they name pages or further sitemaps.

use flate2::read::MultiGzDecoder;
use std::borrow::Cow;
use std::io::Read;

/// Bytes of the largest sitemap that its protocol allows, unpacked.
pub(super) const MAX_SIZE: usize = 50 << 20;
/// How gzip begins (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What a sitemap names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sitemap {
    /// URLs in the order of the file.
    pub locations: Vec<String>,
    /// They are of sitemaps.
    pub is_index: bool,
}

/// Reads a sitemap or an index of sitemaps (sitemaps.org, protocol 0.9), compressed with gzip or not, whatever its name and
/// type say.
///
/// # Errors
/// Why it is none, for people.
pub(super) fn read(bytes: &[u8]) -> Result<Sitemap, &'static str> {
    let bytes = unpacked(bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8")?;
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

/// Unpacks no more than a sitemap may hold: a few bytes of gzip can stand for gigabytes.
fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    if !bytes.starts_with(&GZIP) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = Vec::new();
    let most = MAX_SIZE as u64;
    let read = MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut out);
    if out.len() > MAX_SIZE {
        return Err("it unpacks to more than 50 MiB, the most that a sitemap may have");
    }
    read.map_err(|_| "it is broken gzip")?;
    Ok(Cow::Owned(out))
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
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

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
        assert_eq!(read(&[0xff, 0xfe]), Err("it is not UTF-8"));
    }

    fn gzip(pieces: &[&[u8]]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::best());
        pieces.iter().for_each(|piece| packed.write_all(piece).unwrap());
        packed.finish().unwrap()
    }

    #[test]
    fn gzip_is_unpacked_and_a_bomb_is_refused() {
        let text = b"<urlset><loc>https://a/1</loc></urlset>";
        let packed = gzip(&[text]);
        assert_eq!(read(&packed), read(text));
        assert_eq!(read(&[gzip(&[&text[..20]]), gzip(&[&text[20..]])].concat()), read(text), "in two members");
        for broken in [&packed[..packed.len() - 9], &packed[..3], &[&packed[..packed.len() - 8], &[0; 8]].concat()] {
            assert_eq!(read(broken), Err("it is broken gzip"));
        }
        let zeros = vec![b' '; 1 << 20];
        let mut pieces: Vec<&[u8]> = vec![text];
        pieces.resize(51, &zeros);
        let bomb = gzip(&pieces);
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        assert_eq!(read(&bomb).map(|_| ()), Err("it unpacks to more than 50 MiB, the most that a sitemap may have"));
        let bombs = vec![bomb.as_slice(); 100].concat();
        assert_eq!(read(&bombs).map(|_| ()), Err("it unpacks to more than 50 MiB, the most that a sitemap may have"));
        let fits = read(&gzip(&pieces[..50])).unwrap();
        assert_eq!(fits.locations, ["https://a/1"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(<urlset>|<loc>|</loc|<!--|-->|&|;|#x?[0-9a-f]{0,9}|amp|ü|<!\\[CDATA\\[){0,20}") {
            let _ = read(text.as_bytes());
        }
    }
}
