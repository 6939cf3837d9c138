//! An instance in a process of its own: it answers at once, with 8 MiB where `/large` is asked for.

use std::io::{self, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;

/// What its kernel holds of answers that nobody takes. It would be the memory of another machine, and there is only one here.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

/// Prints its port and serves until it is killed.
pub async fn serve() -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    loop {
        let (wire, _) = listener.accept().await?;
        // Whoever leaves is not missed.
        spawn_local(async move { answer(wire).await.ok() });
    }
}

async fn answer(mut wire: TcpStream) -> io::Result<()> {
    let mut input = Vec::new();
    loop {
        while !input.windows(4).any(|end| end == b"\r\n\r\n") {
            if wire.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        if input.starts_with(b"GET /large") {
            wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n").await?;
            for _ in 0..512 {
                wire.write_all(&[b'x'; 16 * 1024]).await?;
            }
        } else if input.starts_with(b"POST") {
            while wire.read(&mut [0; 1024]).await? > 0 {} // it will never come to its end
            return Ok(());
        } else {
            wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
        }
        input.clear();
    }
}
