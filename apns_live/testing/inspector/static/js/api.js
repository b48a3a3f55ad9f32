// Calls of the control API.

export class ApiError extends Error {}

export async function call(method, path, body) {
  const request = { method, headers: {} };
  if (method !== "GET" && method !== "DELETE") {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body ?? {});
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new ApiError("The fake does not answer.");
  }
  if (!response.ok) throw new ApiError(await problemOf(response));
  return response.status === 204 ? null : response.json();
}

async function problemOf(response) {
  try {
    const { error, field, remedy } = await response.json();
    return [field ? `${field}: ${error}` : error, remedy].filter(Boolean).join(". ");
  } catch {
    return `The fake answered ${response.status}.`;
  }
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
export const remove = (path) => call("DELETE", path);
export const device = (id) => `/v1/devices/${encodeURIComponent(id)}`;
export const activity = (id) => `/v1/activities/${encodeURIComponent(id)}`;
