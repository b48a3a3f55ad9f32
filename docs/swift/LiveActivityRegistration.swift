//  LiveActivityRegistration.swift
//
//  Sends this app's tokens to the gateway's native API: push-to-start tokens, activity tokens, the
//  device token, and receipts about cards. Add it to the app's target. Add the attributes types at the
//  end to the widget extension's target as well.
//
//  Needs iOS 17.2 for push-to-start and iOS 16.2 for the rest. Uses Apple's ActivityKit and
//  Foundation, nothing else.
//
//  The app has no API key. Your server, which knows the logged-in user, requests a device credential
//  from the gateway (POST /v1/devices/{device}/credentials) and gives it to the app. `credential` below
//  is where the app asks your server for it.

import ActivityKit
import Foundation

// MARK: - Talking to the gateway

/// The answer of your server: a credential of the gateway for this device.
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

    /// Whether the request is wrong and would be refused again.
    var isAboutTheBody: Bool {
        guard case .refused(let status, _) = self else { return false }
        return status == 400 || status == 422
    }
}

/// Calls the gateway as this phone. Stores unsent tokens on disk and sends them with the next call, so that a
/// token is not lost when the app was launched in the background without a network.
public actor GatewayClient {
    private let gateway: URL
    private let session: URLSession
    private let fetchCredential: @Sendable () async throws -> DeviceCredential
    private var held: DeviceCredential?
    private let file: URL
    private var kept: Kept

    /// The data on disk: unsent tokens (the newest of each kind), and the sessions so far.
    private struct Kept: Codable {
        var pending: [String: TokenReport] = [:]
        var newest: [String: TokenReport] = [:]
        var cards: [String: Double] = [:]
        var first: Double = 0
        var last: Double = 0
        var count: Int = 0
    }

    public init(
        gateway: URL,
        session: URLSession = .shared,
        file: URL = URL.applicationSupportDirectory.appending(path: "live-activity-tokens.json"),
        credential: @escaping @Sendable () async throws -> DeviceCredential
    ) {
        self.gateway = gateway
        self.session = session
        self.fetchCredential = credential
        self.file = file
        let data = try? Data(contentsOf: file)
        self.kept = data.flatMap { try? JSONDecoder().decode(Kept.self, from: $0) } ?? Kept()
    }

    /// Readable after the first unlock, because tokens also arrive while the phone is locked.
    private func save() {
        guard let data = try? JSONEncoder().encode(kept) else { return }
        try? FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try? data.write(
            to: file, options: [.atomic, .completeFileProtectionUntilFirstUserAuthentication])
    }

    /// A token from ActivityKit or UIKit.
    public struct TokenReport: Codable, Sendable {
        public let kind: String
        public let token: String
        public let attributes_type: String?
        public let activity: String?
        /// ActivityKit's id of the card: a hand-over puts two cards of one activity on the phone.
        public let card: String?
        public let environment: String
        public let registered_at: Double
    }

    private struct Tokens: Codable { let tokens: [TokenReport] }
    private struct Receipts: Codable { let receipts: [Receipt] }
    private struct Problem: Codable { let code: String }

    public struct Receipt: Codable, Sendable {
        public let event: String
        public let activity: String?
        public let card: String?
        public let operation: String?
        public let at: Double
    }

    /// Registers a token with the time at which the phone got it, because the newest of a kind counts.
    /// A token that is read again keeps its first time.
    public func register(
        kind: String, token: Data, attributesType: String? = nil, activity: String? = nil,
        card: String? = nil
    ) async {
        let place = "\(kind) \(attributesType ?? "") \(card ?? "")"
        let text = token.map { String(format: "%02x", $0) }.joined()
        let known = kept.newest[place].flatMap { $0.token == text ? $0.registered_at : nil }
        let report = TokenReport(
            kind: kind,
            token: text,
            attributes_type: attributesType,
            activity: activity,
            card: card,
            environment: Self.apnsEnvironment,
            registered_at: known ?? Date().timeIntervalSince1970
        )
        kept.newest[place] = report
        kept.pending[place] = report
        save()
        await flush()
    }

    /// Sends waiting tokens, at most 50 per call. If the gateway refuses one as wrong, it stores none of the
    /// call. They are then sent one by one, and the wrong one is dropped.
    public func flush() async {
        var alone = false
        while !kept.pending.isEmpty {
            let some = Array(kept.pending.prefix(50))
            let sent = alone ? Array(some.prefix(1)) : some
            do {
                try await send("POST", "v1/device/tokens", Tokens(tokens: sent.map { $0.value }))
            } catch {
                guard let refusal = error as? RegistrationError, refusal.isAboutTheBody else {
                    return  // it waits on disk for the next call
                }
                guard sent.count == 1 else {
                    alone = true
                    continue
                }
            }
            for (place, report) in sent where kept.pending[place]?.token == report.token {
                kept.pending[place] = nil
            }
            save()
        }
    }

    /// Removes a card that has ended, so that its token is not sent any more.
    public func forget(card: String, type: String) {
        kept.cards[card] = nil
        kept.newest["activity \(type) \(card)"] = nil
        kept.pending["activity \(type) \(card)"] = nil
        save()
    }

    /// Returns when each card was first seen, in seconds since 1970, which ActivityKit does not report.
    public func firstSeen(_ cards: [String]) -> [String: Double] {
        let now = Date().timeIntervalSince1970
        for card in cards where kept.cards[card] == nil { kept.cards[card] = now }
        save()
        return kept.cards.filter { cards.contains($0.key) }
    }

    /// Reports what happened to a card: received, clicked, dismissed or ended.
    public func report(_ event: String, activity: String, card: String? = nil) async {
        let receipt = Receipt(
            event: event, activity: activity, card: card, operation: nil,
            at: Date().timeIntervalSince1970)
        try? await send("POST", "v1/device/receipts", Receipts(receipts: [receipt]))
    }

    /// Sends device facts for audiences: app version, iOS version, country and sessions. The user is set by
    /// your server. A session begins when the app comes to the foreground after 30 seconds.
    public func tell(newSession: Bool, appVersion: String, language: String, frequentUpdates: Bool) async {
        struct Facts: Codable {
            let app_version: String
            let os_version: String
            let language: String
            let country: String?
            let first_session: Double?
            let last_session: Double?
            let session_count: Int?
            let frequent_updates: Bool
        }
        let now = Date().timeIntervalSince1970
        if newSession && now - kept.last > 30 {
            if kept.count == 0 { kept.first = now }
            kept.last = now
            kept.count += 1
            save()
        }
        let system = ProcessInfo.processInfo.operatingSystemVersion
        let region = Locale.current.region?.identifier
        let facts = Facts(
            app_version: appVersion,
            os_version: "\(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            language: language,
            country: region.flatMap { $0.count == 2 ? $0 : nil },
            first_session: kept.count == 0 ? nil : kept.first,
            last_session: kept.count == 0 ? nil : kept.last,
            session_count: kept.count == 0 ? nil : kept.count,
            frequent_updates: frequentUpdates)
        try? await send("PUT", "v1/device", facts)
    }

    private func send<Body: Encodable>(_ method: String, _ path: String, _ body: Body) async throws {
        let data = try JSONEncoder().encode(body)
        var renewed = false
        var waited = 0
        while true {
            let credential: DeviceCredential
            if let held { credential = held } else { credential = try await fetchCredential() }
            held = credential
            var request = URLRequest(url: gateway.appendingPathComponent(path))
            request.httpMethod = method
            request.httpBody = data
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
            request.setValue("Bearer \(credential.credential)", forHTTPHeaderField: "Authorization")
            let (answer, response) = try await session.data(for: request)
            guard let http = response as? HTTPURLResponse else { throw RegistrationError.noAnswer }
            if (200..<300).contains(http.statusCode) { return }
            if http.statusCode == 401 && !renewed {  // the credential has expired
                renewed = true
                held = nil
                continue
            }
            if http.statusCode == 429 && waited < 3 {
                waited += 1
                let seconds = Double(http.value(forHTTPHeaderField: "Retry-After") ?? "") ?? 5
                try await Task.sleep(for: .seconds(min(max(seconds, 1), 60)))
                continue
            }
            let code = (try? JSONDecoder().decode(Problem.self, from: answer))?.code ?? ""
            throw RegistrationError.refused(status: http.statusCode, code: code)
        }
    }

    /// The environment comes from the provisioning profile. A build from the App Store or TestFlight has no
    /// profile and is production. `#if DEBUG` is not reliable.
    private static let apnsEnvironment: String = {
        #if targetEnvironment(simulator)
            return "sandbox"
        #else
            guard let url = Bundle.main.url(forResource: "embedded", withExtension: "mobileprovision"),
                let profile = try? Data(contentsOf: url),
                let begin = profile.range(of: Data("<?xml".utf8)),
                let end = profile.range(
                    of: Data("</plist>".utf8), in: begin.lowerBound..<profile.endIndex),
                let list = try? PropertyListSerialization.propertyList(
                    from: profile[begin.lowerBound..<end.upperBound], format: nil) as? [String: Any],
                let entitlements = list["Entitlements"] as? [String: Any]
            else { return "production" }
            if entitlements["aps-environment"] as? String == "development" { return "sandbox" }
            return "production"
        #endif
    }()
}

// MARK: - Which activity a card belongs to

/// Attributes with the activity's id from the gateway, which the app needs to register a token.
public protocol GatewayActivityAttributes: ActivityAttributes {
    var gatewayActivityId: String? { get }
    /// What the card shows. If two cards have the same subject, the app ends the older one.
    var subject: String? { get }
}

extension GatewayActivityAttributes {
    public var subject: String? { gatewayActivityId }
}

// MARK: - Following ActivityKit

/// Observes attributes types. Keep one object while the app runs, and call `observe` for each type at every
/// launch: ActivityKit may launch the app in the background for a token. Call `foreground` whenever the app
/// becomes active: `pushToStartTokenUpdates` may miss a new token that the property has.
@MainActor
public final class LiveActivityRegistration {
    private let client: GatewayClient
    private var tasks: [Task<Void, Never>] = []
    private var followed: Set<String> = []
    private var replaced: Set<String> = []
    private var readings: [String: @MainActor () async -> Void] = [:]

    public init(client: GatewayClient) {
        self.client = client
    }

    deinit {
        for task in tasks { task.cancel() }
    }

    /// Registers push-to-start tokens of a type, and the tokens of each of its activities.
    public func observe<Attributes: GatewayActivityAttributes>(_: Attributes.Type) {
        let type = String(describing: Attributes.self)
        guard readings[type] == nil else { return }
        let client = self.client
        readings[type] = { [weak self] in await self?.read(Attributes.self, type: type) }
        tasks.append(Task { [weak self] in await self?.refresh(newSession: false) })
        if #available(iOS 17.2, *) {
            tasks.append(
                Task {
                    for await token in Activity<Attributes>.pushToStartTokenUpdates {
                        await client.register(kind: "start", token: token, attributesType: type)
                    }
                })
        }
        tasks.append(
            Task { [weak self] in
                for await _ in Activity<Attributes>.activityUpdates {
                    await self?.read(Attributes.self, type: type)
                }
            })
        guard readings.count == 1 else { return }
        tasks.append(
            Task { [weak self] in
                for await _ in ActivityAuthorizationInfo().frequentPushEnablementUpdates {
                    await self?.tell(newSession: false)
                }
            })
    }

    /// Reads every token again, and counts a session. Call it when the scene becomes active.
    public func foreground() async {
        await refresh(newSession: true)
    }

    private func refresh(newSession: Bool) async {
        for reading in Array(readings.values) { await reading() }
        await client.flush()
        await tell(newSession: newSession)
    }

    private func tell(newSession: Bool) async {
        await client.tell(
            newSession: newSession, appVersion: Self.appVersion, language: Self.language,
            frequentUpdates: ActivityAuthorizationInfo().frequentPushesEnabled)
    }

    /// Reads the current start token, and the token of each visible card.
    private func read<Attributes: GatewayActivityAttributes>(_: Attributes.Type, type: String) async {
        if #available(iOS 17.2, *), let token = Activity<Attributes>.pushToStartToken {
            await client.register(kind: "start", token: token, attributesType: type)
        }
        let up = Activity<Attributes>.activities.filter(Self.isUp)
        let seen = await client.firstSeen(up.map { $0.id })
        var newest: [String: Activity<Attributes>] = [:]
        for activity in up.sorted(by: { (seen[$0.id] ?? 0) < (seen[$1.id] ?? 0) }) {
            let subject = activity.attributes.subject ?? activity.id
            if let older = newest[subject] {
                replaced.insert(older.id)
                await older.end(nil, dismissalPolicy: .immediate)
                let id = older.attributes.gatewayActivityId
                let same = id == activity.attributes.gatewayActivityId
                await client.forget(card: older.id, type: type)
                if !same, let id { await client.report("ended", activity: id) }
            }
            newest[subject] = activity
        }
        for activity in newest.values { await follow(activity, type: type) }
    }

    /// Cards that have ended or were swiped away also have a token, which must not be registered again.
    private nonisolated static func isUp<Attributes: GatewayActivityAttributes>(
        _ activity: Activity<Attributes>
    ) -> Bool {
        activity.activityState == .active || activity.activityState == .stale
    }

    /// Starts an activity in the app. Its token makes it known to the gateway.
    @discardableResult
    public func start<Attributes: GatewayActivityAttributes>(
        _ attributes: Attributes, state: Attributes.ContentState, staleDate: Date? = nil
    ) throws -> Activity<Attributes> {
        let activity = try Activity.request(
            attributes: attributes,
            content: ActivityContent(state: state, staleDate: staleDate),
            pushType: .token
        )
        let type = String(describing: Attributes.self)
        tasks.append(Task { [weak self] in await self?.read(Attributes.self, type: type) })
        return activity
    }

    /// Registers the device token, from `application(_:didRegisterForRemoteNotificationsWithDeviceToken:)`.
    public func register(deviceToken: Data) async {
        for reading in Array(readings.values) { await reading() }
        await client.register(kind: "device", token: deviceToken)
    }

    /// Reports a tap, from the scene's URL or user activity.
    public func reportTap(activity: String) async {
        await client.report("clicked", activity: activity)
    }

    private func follow<Attributes: GatewayActivityAttributes>(
        _ activity: Activity<Attributes>, type: String
    ) async {
        guard let id = activity.attributes.gatewayActivityId else { return }
        let client = self.client
        if let token = activity.pushToken, Self.isUp(activity) {
            await client.register(
                kind: "activity", token: token, attributesType: type, activity: id, card: activity.id)
        }
        guard followed.insert(activity.id).inserted else { return }
        tasks.append(
            Task {
                for await token in activity.pushTokenUpdates where Self.isUp(activity) {
                    await client.register(
                        kind: "activity", token: token, attributesType: type, activity: id,
                        card: activity.id)
                }
            })
        tasks.append(
            Task {
                for await _ in activity.contentUpdates { await client.report("received", activity: id) }
            })
        tasks.append(
            Task { [weak self] in
                for await state in activity.activityStateUpdates {
                    guard state == .dismissed || state == .ended else { continue }
                    guard let self else { return }
                    self.followed.remove(activity.id)
                    // Another card has this one's place, and perhaps its id.
                    if self.replaced.remove(activity.id) != nil { return }
                    await client.forget(card: activity.id, type: type)
                    // Swiped away, it frees its place on this phone.
                    if state == .dismissed {
                        await client.report("dismissed", activity: id, card: activity.id)
                    } else {
                        await client.report("ended", activity: id, card: activity.id)
                    }
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

/// The native API puts the id into the attribute `activityId`, unless `id_attribute` names another.
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
    public var subject: String? { stream_key ?? activity_id }
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
