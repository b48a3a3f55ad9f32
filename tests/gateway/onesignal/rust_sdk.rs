// Makes the calls given on stdin with OneSignal's Rust crate, and prints what each came to.
use onesignal_rust_api::apis::configuration::Configuration;
use onesignal_rust_api::apis::default_api as api;
use onesignal_rust_api::apis::Error;
use serde::{de::DeserializeOwned, Serialize};
use serde_json::{json, Value};
use std::fmt::Debug;

fn typed<T: DeserializeOwned>(body: &Value) -> T {
    serde_json::from_value(body.clone()).expect("a body that the crate's types can hold")
}

fn told<T: Serialize, E: Debug>(result: Result<T, Error<E>>) -> Value {
    match result {
        Ok(value) => json!({ "value": value }),
        Err(error) => {
            let errors = error.error_messages();
            match error {
                Error::ResponseError(response) => {
                    json!({ "status": response.status.as_u16(), "errors": errors })
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn make(configuration: &Configuration, call: &Value) -> Value {
    let part = |index: usize| call["parts"][index].as_str().unwrap_or_default();
    let body = &call["body"];
    match call["method"].as_str().unwrap_or_default() {
        "startLiveActivity" => {
            told(api::start_live_activity(configuration, part(0), part(1), typed(body)).await)
        }
        "updateLiveActivity" => {
            told(api::update_live_activity(configuration, part(0), part(1), typed(body)).await)
        }
        "getNotification" => told(api::get_notification(configuration, part(0), part(1)).await),
        other => panic!("no call is named {other}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let given: Value = serde_json::from_reader(std::io::stdin()).expect("JSON on stdin");
    let configuration = Configuration {
        base_path: given["url"].as_str().expect("a url").to_owned(),
        rest_api_key_token: given["key"].as_str().map(str::to_owned),
        ..Configuration::new()
    };
    let mut results = Vec::new();
    for call in given["calls"].as_array().expect("calls") {
        results.push(make(&configuration, call).await);
    }
    println!("{}", Value::Array(results));
}
