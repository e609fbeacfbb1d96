//! Entropy: the only source of random bytes, the operating system's generator.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random generator failed: {0}")]
pub struct RandomError(getrandom::Error);

/// `N` random bytes.
///
/// # Errors
/// [`RandomError`] when the generator fails; nothing may go on with weaker bytes.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

/// A token of `N` random bytes in unpadded base64url: 22 characters for 16 bytes, 43 for 32.
///
/// # Errors
/// [`RandomError`] when the generator fails.
pub fn random_token<const N: usize>() -> Result<String, RandomError> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<N>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_stated_length_and_differ() {
        let one = random_token::<32>().unwrap();
        assert_eq!(one.len(), 43);
        assert_ne!(one, random_token::<32>().unwrap());
    }
}
