// The sender on a2: 1,000 tasks over one connection, after a warm-up of 20,000.
use a2::request::payload::PayloadLike;
use a2::{Client, ClientConfig, Endpoint, Error, NotificationOptions, Priority, PushType};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, serde::Serialize)]
struct Push<'a> {
    #[serde(skip)]
    token: String,
    #[serde(skip)]
    body: &'a str,
    #[serde(skip)]
    options: NotificationOptions<'a>,
}

impl PayloadLike for Push<'_> {
    fn to_json_string(&self) -> Result<String, Error> {
        Ok(self.body.to_string())
    }
    fn get_device_token(&self) -> &str {
        &self.token
    }
    fn get_options(&self) -> &NotificationOptions<'_> {
        &self.options
    }
}

async fn run(client: &Client, topic: &'static str, body: &'static str, begin: usize, count: usize) -> (f64, usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..1000 {
        let (client, next, failed) = (client.clone(), next.clone(), failed.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let options = NotificationOptions {
                    apns_topic: Some(topic),
                    apns_priority: Some(Priority::High),
                    apns_push_type: Some(PushType::LiveActivity),
                    ..Default::default()
                };
                let token = format!("{:064x}", begin + number);
                if client.send(Push { token, body, options }).await.is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    (start.elapsed().as_secs_f64(), failed.load(Ordering::Relaxed))
}

#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    std::env::set_var("A2_HOST", format!("localhost:{}", a[0]));
    std::env::set_var("A2_ROOTS", &a[1]);
    let mut key = std::fs::File::open(&a[2]).unwrap();
    let client = Client::token(&mut key, &a[3], &a[4], ClientConfig::new(Endpoint::Production)).unwrap();
    let topic: &'static str = a[5].clone().leak();
    let count: usize = a[6].parse().unwrap();
    let body: &'static str = std::fs::read_to_string(&a[7]).unwrap().leak();
    run(&client, topic, body, 0, count.min(20_000)).await;
    let (wall, failed) = run(&client, topic, body, 100_000, count).await;
    println!("{{\"count\": {count}, \"wall\": {wall}, \"failed\": {failed}}}");
}
