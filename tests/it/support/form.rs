//! Links and forms in a page, as far as the pages of these tests need them.

/// A form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it is sent to; empty: where it stands.
    pub action: String,
    /// `GET` or `POST`.
    pub method: String,
    /// Names and values of its inputs.
    pub fields: Vec<(String, String)>,
}

/// The first form of a page.
pub fn find_form(html: &str) -> Option<Form> {
    let (_, after) = html.split_once("<form")?;
    let inside = after.split("</form>").next()?;
    let opening = inside.split('>').next()?;
    let fields = tags(inside, "input")
        .filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default())))
        .collect();
    Some(Form {
        action: attribute(opening, "action").unwrap_or_default(),
        method: attribute(opening, "method").unwrap_or_else(|| "get".into()).to_ascii_uppercase(),
        fields,
    })
}

/// The targets of all links of a page.
pub fn links(html: &str) -> Vec<String> {
    tags(html, "a").filter_map(|tag| attribute(tag, "href")).collect()
}

/// The text inside each tag of this name: `<a href="x">` gives ` href="x"`.
fn tags<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    html.split('<').skip(1).filter_map(move |piece| {
        let inside = piece.split('>').next()?.strip_prefix(name)?;
        (inside.is_empty() || inside.starts_with([' ', '\n', '/'])).then_some(inside)
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, after) = tag.split_once(&format!(" {name}=\""))?;
    after.split('"').next().map(unescape)
}

/// Undoes the escapes that templates write into attributes.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('&');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escape, rest) = piece.split_once(';').expect("an escape ends with a semicolon");
        plain.push(escaped_char(escape));
        plain.push_str(rest);
    }
    plain
}

fn escaped_char(escape: &str) -> char {
    let code = escape.strip_prefix('#').map(|number| match number.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    });
    match (escape, code) {
        ("amp", _) => '&',
        ("lt", _) => '<',
        ("gt", _) => '>',
        ("quot", _) => '"',
        (_, Some(Ok(code))) => char::from_u32(code).expect("an escape names a character"),
        _ => panic!("unknown escape &{escape};"),
    }
}
