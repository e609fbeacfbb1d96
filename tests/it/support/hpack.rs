//! HPACK (RFC 7541): heads of requests as literals, heads of answers as they come.

/// The static table: name, and value where it has one.
const STATIC: &str = "\
:authority\n:method GET\n:method POST\n:path /\n:path /index.html\n:scheme http\n:scheme https\n:status 200\n:status 204\n\
:status 206\n:status 304\n:status 400\n:status 404\n:status 500\naccept-charset\naccept-encoding gzip, deflate\n\
accept-language\naccept-ranges\naccept\naccess-control-allow-origin\nage\nallow\nauthorization\ncache-control\n\
content-disposition\ncontent-encoding\ncontent-language\ncontent-length\ncontent-location\ncontent-range\ncontent-type\n\
cookie\ndate\netag\nexpect\nexpires\nfrom\nhost\nif-match\nif-modified-since\nif-none-match\nif-range\nif-unmodified-since\n\
last-modified\nlink\nlocation\nmax-forwards\nproxy-authenticate\nproxy-authorization\nrange\nreferer\nrefresh\nretry-after\n\
server\nset-cookie\nstrict-transport-security\ntransfer-encoding\nuser-agent\nvary\nvia\nwww-authenticate";

/// The lengths of the Huffman codes of space to tilde (appendix B), as letters: `a` is 1. The code is a
/// canonical one, so the lengths are all of it; longer codes than these have 20 bits and more.
const CODE_LENGTHS: &str =
    "fjjlmfhkjjhkhfffeeefffffffghofljmfgggggggggggggggggggggghghmsmnfoefefefffeggfffefgfeefgggggoknm";

/// A field as a literal that is neither indexed nor packed.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let text: Vec<u8> = text.chars().map(|char| u8::try_from(char).expect("latin-1")).collect();
        integer(&mut bytes, 7, 0, text.len());
        bytes.extend(text);
    }
    bytes
}

/// All fields as literals.
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// An integer behind a prefix of so many bits (RFC 7541 5.1).
pub fn integer(bytes: &mut Vec<u8>, prefix: u32, flags: u8, value: usize) {
    let most = (1_usize << prefix) - 1;
    if value < most {
        return bytes.push(flags | u8::try_from(value).unwrap());
    }
    bytes.push(flags | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// What the other side's encoder has said so far.
#[derive(Default)]
pub struct Decoder {
    /// The newest first.
    table: Vec<(String, String)>,
}

impl Decoder {
    /// A block's fields.
    ///
    /// # Panics
    /// When it is none.
    pub fn decode(&mut self, mut block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index = take_integer(&mut block, 7);
                    fields.push(self.entry(index));
                }
                0x40.. => {
                    let field = self.literal(&mut block, 6);
                    self.table.insert(0, field.clone());
                    fields.push(field);
                }
                0x20.. => drop(take_integer(&mut block, 5)),
                _ => fields.push(self.literal(&mut block, 4)),
            }
        }
        fields
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> (String, String) {
        let index = take_integer(block, prefix);
        let name = if index == 0 { take_text(block) } else { self.entry(index).0 };
        (name, take_text(block))
    }

    fn entry(&self, index: usize) -> (String, String) {
        let entry = STATIC.lines().nth(index - 1).map(|line| line.split_once(' ').unwrap_or((line, "")));
        let entry = entry.map(|(name, value)| (name.to_owned(), value.to_owned()));
        entry.unwrap_or_else(|| self.table[index - 1 - STATIC.lines().count()].clone())
    }
}

fn take<'a>(block: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = block.split_at(count);
    *block = rest;
    taken
}

fn take_integer(block: &mut &[u8], prefix: u32) -> usize {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(take(block, 1)[0]) & most;
    let mut shift = 0;
    while value >= most {
        let byte = usize::from(take(block, 1)[0]);
        value += (byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
    }
    value
}

fn take_text(block: &mut &[u8]) -> String {
    let packed = block[0] & 128 != 0;
    let length = take_integer(block, 7);
    let bytes = take(block, length);
    if packed { unpack(bytes) } else { bytes.iter().copied().map(char::from).collect() }
}

fn unpack(bytes: &[u8]) -> String {
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    let (mut code, mut length, mut text) = (0, 0, String::new());
    for bit in bits {
        (code, length) = (code << 1 | bit, length + 1);
        if let Some(char) = coded(code, length) {
            text.push(char);
            (code, length) = (0, 0);
        }
    }
    assert!(code + 1 == 1 << length && length < 8, "what is left is padding");
    text
}

/// The character with this code.
fn coded(code: u32, length: u8) -> Option<char> {
    let lengths = || CODE_LENGTHS.bytes().map(|letter| letter - b'a' + 1);
    let mut first = 0;
    for shorter in 1..length {
        // NUL is the only other one among them, with 13 bits; it is the first of those.
        let count = lengths().filter(|&each| each == shorter).count() + usize::from(shorter == 13);
        first = (first + u32::try_from(count).unwrap()) << 1;
    }
    let place = code.checked_sub(first + u32::from(length == 13))?;
    let mut of_this_length = (b' '..).zip(lengths()).filter(|&(_, each)| each == length);
    of_this_length.nth(place as usize).map(|(byte, _)| char::from(byte))
}

#[test]
fn packed_text_is_read_as_the_specification_has_it() {
    // RFC 7541 C.4.1, C.6.1.
    assert_eq!(unpack(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), "www.example.com");
    let date = b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff";
    assert_eq!(unpack(date), "Mon, 21 Oct 2013 20:13:21 GMT");
    let block = b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\xbf\xbe";
    let fields = Decoder::default().decode(block);
    assert_eq!(fields[0], (":status".to_owned(), "302".to_owned()));
    assert_eq!(fields[1], ("cache-control".to_owned(), "private".to_owned()));
    assert_eq!(fields[2], fields[0]);
}
