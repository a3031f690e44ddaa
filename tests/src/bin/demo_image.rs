//! Makes the demo image: busybox, and a page for its web server. `demo_image OUT.tar`, or `--push HOST:PORT/NAME:TAG`.

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use gantry_tests::image::Build;

#[derive(Parser)]
#[command(about = "Make the demo image from busybox, as an OCI layout archive or in a registry")]
struct Arguments {
    /// Where to write the archive.
    #[arg(required_unless_present = "push")]
    out: Option<PathBuf>,
    /// Push to this registry, over plain HTTP.
    #[arg(long, value_name = "HOST:PORT/NAME:TAG")]
    push: Option<String>,
    /// The image's name in the archive.
    #[arg(long, default_value = "gantry.local/demo:1")]
    name: String,
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// Add a file of this machine: PATH-IN-IMAGE=FILE.
    #[arg(long, value_name = "PATH=FILE")]
    file: Vec<String>,
    /// Replaces the image's entrypoint; may be given several times.
    #[arg(long)]
    entrypoint: Vec<String>,
    /// The image's command; by default a web server on port 8080 that serves /www.
    #[arg(last = true)]
    cmd: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut build = Build::busybox(&arguments.busybox)?;
    build.file("www/index.html", 0o644, "Hello from Gantry.\n");
    for pair in &arguments.file {
        let (path, file) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not PATH=FILE"))?;
        build.file(path, 0o644, std::fs::read(file)?);
    }
    build.entrypoint = arguments.entrypoint;
    build.cmd = match arguments.cmd.is_empty() {
        true => ["httpd", "-f", "-v", "-p", "8080", "-h", "/www"].map(str::to_owned).to_vec(),
        false => arguments.cmd,
    };
    let built = build.build();
    if let Some(out) = arguments.out {
        std::fs::write(out, built.archive(&arguments.name))?;
    }
    if let Some(target) = arguments.push {
        built.push(&target).await?;
    }
    println!("{built}");
    Ok(())
}
