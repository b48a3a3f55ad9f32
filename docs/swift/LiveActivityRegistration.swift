//  LiveActivityRegistration.swift
//
//  Hands this app's tokens to the gateway's native API: push-to-start tokens, activity tokens, the
//  device token, and receipts of what became of a card. Put it into the app's target; the attributes
//  types at the end belong to the widget extension's target as well.
//
//  Needs iOS 17.2 for push-to-start and iOS 16.2 for the rest. Uses Apple's ActivityKit and
//  Foundation, nothing else.
//
//  The app holds no API key. Its own server, which knows who is logged in, asks the gateway for a
//  device credential (POST /v1/devices/{device}/credentials) and hands it on; `credential` below is
//  where the app asks its server for it.

import ActivityKit
import Foundation

// MARK: - Talking to the gateway

/// What the app's own server hands out: a credential of the gateway for this one device.
public struct DeviceCredential: Codable, Sendable {
    public let credential: String
    public let device: String
    public let expires_at: String

    public init(credential: String, device: String, expires_at: String) {
        self.credential = credential
        self.device = device
        self.expires_at = expires_at
    }
}

public enum RegistrationError: Error {
    /// The gateway refused; `code` is the stable code of its problem answer.
    case refused(status: Int, code: String)
    case noAnswer
}

/// Calls the gateway as this phone. Keeps what could not be sent and sends it with the next call.
public actor GatewayClient {
    private let gateway: URL
    private let session: URLSession
    private let fetchCredential: @Sendable () async throws -> DeviceCredential
    private var held: DeviceCredential?
    private var pending: [String: TokenReport] = [:]

    public init(
        gateway: URL,
        session: URLSession = .shared,
        credential: @escaping @Sendable () async throws -> DeviceCredential
    ) {
        self.gateway = gateway
        self.session = session
        self.fetchCredential = credential
    }

    /// A token as ActivityKit or UIKit handed it out.
    public struct TokenReport: Codable, Sendable {
        public let kind: String
        public let token: String
        public let attributes_type: String?
        public let activity: String?
        public let environment: String
        public let registered_at: Double
    }

    private struct Tokens: Codable { let tokens: [TokenReport] }
    private struct Receipts: Codable { let receipts: [Receipt] }
    private struct Problem: Codable { let code: String }

    public struct Receipt: Codable, Sendable {
        public let event: String
        public let activity: String?
        public let operation: String?
        public let at: Double
    }

    /// Registers a token. The newest of a kind counts, so the time at which the phone got it goes along.
    public func register(
        kind: String, token: Data, attributesType: String? = nil, activity: String? = nil
    ) async {
        let report = TokenReport(
            kind: kind,
            token: token.map { String(format: "%02x", $0) }.joined(),
            attributes_type: attributesType,
            activity: activity,
            environment: apnsEnvironment,
            registered_at: Date().timeIntervalSince1970
        )
        pending["\(kind) \(attributesType ?? "") \(activity ?? "")"] = report
        await flush()
    }

    /// Sends what waits. Call it too when the app comes to the foreground.
    public func flush() async {
        guard !pending.isEmpty else { return }
        let sent = pending
        do {
            // The gateway takes at most 50 tokens in a call.
            try await send("POST", "v1/device/tokens", Tokens(tokens: Array(sent.values.prefix(50))))
        } catch {
            return  // it waits for the next call
        }
        for (place, report) in sent.prefix(50)
        where pending[place]?.registered_at == report.registered_at {
            pending[place] = nil
        }
    }

    /// Reports what happened to a card: received, clicked, dismissed or ended.
    public func report(_ event: String, activity: String) async {
        let receipt = Receipt(
            event: event, activity: activity, operation: nil, at: Date().timeIntervalSince1970)
        try? await send("POST", "v1/device/receipts", Receipts(receipts: [receipt]))
    }

    /// Tells what the gateway's audiences may be about. Whose phone it is, the server says.
    public func tell(appVersion: String, language: String, frequentUpdates: Bool) async {
        struct Facts: Codable {
            let app_version: String
            let language: String
            let frequent_updates: Bool
        }
        try? await send(
            "PUT", "v1/device",
            Facts(app_version: appVersion, language: language, frequent_updates: frequentUpdates))
    }

    private func send<Body: Encodable>(_ method: String, _ path: String, _ body: Body) async throws {
        let data = try JSONEncoder().encode(body)
        for attempt in 0..<2 {
            if held == nil || attempt > 0 { held = try await fetchCredential() }
            guard let held else { throw RegistrationError.noAnswer }
            var request = URLRequest(url: gateway.appendingPathComponent(path))
            request.httpMethod = method
            request.httpBody = data
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
            request.setValue("Bearer \(held.credential)", forHTTPHeaderField: "Authorization")
            let (answer, response) = try await session.data(for: request)
            guard let status = (response as? HTTPURLResponse)?.statusCode else {
                throw RegistrationError.noAnswer
            }
            if (200..<300).contains(status) { return }
            if status == 401 && attempt == 0 { continue }  // the credential has ended
            let code = (try? JSONDecoder().decode(Problem.self, from: answer))?.code ?? ""
            throw RegistrationError.refused(status: status, code: code)
        }
    }

    /// A build that is signed for development gets tokens of APNs' development environment.
    private nonisolated var apnsEnvironment: String {
        #if DEBUG
            return "sandbox"
        #else
            return "production"
        #endif
    }
}

// MARK: - Which activity a card belongs to

/// Attributes in which the gateway put the activity's id, so that the app can say whose token it has.
public protocol GatewayActivityAttributes: ActivityAttributes {
    var gatewayActivityId: String? { get }
}

// MARK: - Following ActivityKit

/// Observes every attributes type that it is told of. Keep one for the app's life, and call `observe`
/// for each type at every launch: ActivityKit may launch the app in the background for a token.
@MainActor
public final class LiveActivityRegistration {
    private let client: GatewayClient
    private var tasks: [Task<Void, Never>] = []
    private var followed: Set<String> = []

    public init(client: GatewayClient) {
        self.client = client
    }

    deinit {
        for task in tasks { task.cancel() }
    }

    /// Registers push-to-start tokens of a type, and the tokens of each of its activities.
    public func observe<Attributes: GatewayActivityAttributes>(_: Attributes.Type) {
        let type = String(describing: Attributes.self)
        let client = self.client
        if #available(iOS 17.2, *) {
            tasks.append(
                Task {
                    for await token in Activity<Attributes>.pushToStartTokenUpdates {
                        await client.register(kind: "start", token: token, attributesType: type)
                    }
                })
        }
        for activity in Activity<Attributes>.activities { follow(activity, type: type) }
        tasks.append(
            Task { [weak self] in
                for await activity in Activity<Attributes>.activityUpdates {
                    self?.follow(activity, type: type)
                }
            })
        tasks.append(
            Task {
                for await enabled in ActivityAuthorizationInfo().frequentPushEnablementUpdates {
                    await client.tell(
                        appVersion: Self.appVersion, language: Self.language,
                        frequentUpdates: enabled)
                }
            })
    }

    /// Starts an activity in the app itself. The gateway learns of it by its token.
    @discardableResult
    public func start<Attributes: GatewayActivityAttributes>(
        _ attributes: Attributes, state: Attributes.ContentState, staleDate: Date? = nil
    ) throws -> Activity<Attributes> {
        let activity = try Activity.request(
            attributes: attributes,
            content: ActivityContent(state: state, staleDate: staleDate),
            pushType: .token
        )
        follow(activity, type: String(describing: Attributes.self))
        return activity
    }

    /// Hands in the device token, from `application(_:didRegisterForRemoteNotificationsWithDeviceToken:)`.
    public func register(deviceToken: Data) async {
        await client.register(kind: "device", token: deviceToken)
    }

    /// Reports a tap, from the scene's URL or user activity.
    public func reportTap(activity: String) async {
        await client.report("clicked", activity: activity)
    }

    private func follow<Attributes: GatewayActivityAttributes>(
        _ activity: Activity<Attributes>, type: String
    ) {
        guard let id = activity.attributes.gatewayActivityId, !followed.contains(activity.id) else {
            return
        }
        followed.insert(activity.id)
        let client = self.client
        if let token = activity.pushToken {
            tasks.append(
                Task {
                    await client.register(
                        kind: "activity", token: token, attributesType: type, activity: id)
                })
        }
        tasks.append(
            Task {
                for await token in activity.pushTokenUpdates {
                    await client.register(
                        kind: "activity", token: token, attributesType: type, activity: id)
                }
            })
        tasks.append(
            Task {
                for await _ in activity.contentUpdates { await client.report("received", activity: id) }
            })
        tasks.append(
            Task { [weak self] in
                for await state in activity.activityStateUpdates {
                    switch state {
                    case .dismissed: await client.report("dismissed", activity: id)
                    case .ended: await client.report("ended", activity: id)
                    default: continue
                    }
                    self?.followed.remove(activity.id)
                    return
                }
            })
    }

    private static var appVersion: String {
        Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String ?? "0"
    }

    private static var language: String {
        Locale.preferredLanguages.first ?? "en"
    }
}

// MARK: - Attributes of your own, for the native API

/// The native API puts the id into the attribute `activityId` (its `id_attribute` says otherwise).
public struct MatchAttributes: GatewayActivityAttributes {
    public struct ContentState: Codable, Hashable {
        public var home: Int
        public var away: Int
        public var minute: Int
    }

    public var home: String
    public var away: String
    public var activityId: String?
    public var gatewayActivityId: String? { activityId }
}

// MARK: - Attributes for ActivitySmith's content states

/// Every kind of state in one type; the widget looks at `type`. Fields of another kind are absent.
public struct ActivitySmithAttributes: GatewayActivityAttributes {
    public enum Kind: String, Codable, Hashable {
        case segmentedProgress = "segmented_progress"
        case progress
        case metrics
        case stats
        case alert
        case timer
        case value
        // Kinds of former days, drawn as segments.
        case counter
        case countdown
    }

    public enum Tint: String, Codable, Hashable {
        case lime, green, cyan, blue, purple, magenta, red, orange, yellow, gray
    }

    /// A text or a number: ActivitySmith's values are either, and a text is shown as it is.
    public enum Amount: Codable, Hashable {
        case number(Double)
        case text(String)

        public init(from decoder: Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let number = try? container.decode(Double.self) {
                self = .number(number)
            } else {
                self = .text(try container.decode(String.self))
            }
        }

        public func encode(to encoder: Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .number(let number): try container.encode(number)
            case .text(let text): try container.encode(text)
            }
        }
    }

    public struct Metric: Codable, Hashable {
        public var label: String
        public var value: Amount
        public var unit: String?
        public var color: Tint?
    }

    public struct Icon: Codable, Hashable {
        /// The name of an SF Symbol.
        public var symbol: String
        public var color: Tint?
    }

    public struct Badge: Codable, Hashable {
        public var title: String
        public var color: Tint?
    }

    /// A webhook's `url` is a signed address of the gateway that ends: POST to it without a body.
    public struct Button: Codable, Hashable {
        public enum Kind: String, Codable, Hashable {
            case openURL = "open_url"
            case webhook
        }

        public var title: String
        public var type: Kind
        public var url: String
    }

    public struct ContentState: Codable, Hashable {
        public var type: Kind
        public var title: String
        public var subtitle: String?
        public var color: Tint?
        public var icon: Icon?
        public var badge: Badge?
        // segmented_progress, counter, countdown
        public var number_of_steps: Int?
        public var current_step: Int?
        public var step_color: Tint?
        public var step_colors: [Tint]?
        // progress; `value` is also the kind value's
        public var percentage: Double?
        public var value: Amount?
        public var upper_limit: Double?
        // metrics, stats
        public var metrics: [Metric]?
        // alert
        public var message: String?
        // timer: seconds since 1970 and seconds, so that the card draws itself
        public var duration_seconds: Double?
        public var started_at: Double?
        public var ends_at: Double?
        public var counts_down: Bool?
        public var is_running: Bool?
        public var frozen_remaining: Double?
        public var frozen_elapsed: Double?
        public var action: Button?
        public var secondary_action: Button?

        /// What `Text(timerInterval:countsDown:)` needs; nil while the timer stands still.
        public var window: ClosedRange<Date>? {
            guard type == .timer, is_running != false, let begin = started_at else { return nil }
            let end = ends_at ?? begin + 8 * 3600
            return Date(timeIntervalSince1970: begin)...Date(timeIntervalSince1970: max(begin, end))
        }
    }

    public var activity_id: String?
    public var stream_key: String?
    public var gatewayActivityId: String? { activity_id }
}

// MARK: - Attributes for Braze

/// Braze puts its `activity_id` into `brazeActivityId`. Add your own attributes beside it.
public struct BrazeOrderAttributes: GatewayActivityAttributes {
    public struct ContentState: Codable, Hashable {
        public var title: String
        public var status: String
        public var progress: Double
    }

    public var brazeActivityId: String?
    public var gatewayActivityId: String? { brazeActivityId }
}

// MARK: - Attributes for OneSignal

/// OneSignal puts `{"activityId": ...}` into `onesignal` of the attributes, and may put
/// `{"notificationId": ...}` into `onesignal` of the content state. Neither may be missing from the
/// types: without the first a start cannot be decoded, and the phone shows nothing.
public struct OneSignalOrderAttributes: GatewayActivityAttributes {
    public struct OneSignalAttributes: Codable, Hashable {
        public var activityId: String
    }

    public struct OneSignalContent: Codable, Hashable {
        public var notificationId: String
    }

    public struct ContentState: Codable, Hashable {
        public var title: String
        public var status: String
        public var progress: Double
        public var onesignal: OneSignalContent?
    }

    public var onesignal: OneSignalAttributes
    public var gatewayActivityId: String? { onesignal.activityId }
}
