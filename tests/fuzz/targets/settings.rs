//! The configuration file.

use portcullis::config::check_alone;
use portcullis::secret::Secret;

/// A good session key, and good enough for every other secret.
const SECRET: &str = "c2VjcmV0LWh1bnRlcjItMDEyMzQ1Njc4OWFiY2RlZmc";

/// Every text is judged, with places, the same way twice, and no secret is told.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let secret = Secret::new(SECRET.to_owned());
    // A file that holds the secret itself may be quoted.
    let told = |said: &str| said.contains(SECRET) && !text.contains(SECRET);
    match check_alone(&text, &secret) {
        Ok(settings) => assert!(!told(&format!("{settings:?}")), "the settings show a secret"),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            for problem in &problems {
                assert!(!problem.path.is_empty(), "no place: {problem}");
                assert!(!problem.message.is_empty() && !told(&problem.message), "{problem}");
                assert!(!problem.to_string().contains('\u{1b}'), "{problem:?}");
            }
            assert_eq!(check_alone(&text, &secret).err(), Some(problems), "another verdict the second time");
        }
    }
}
