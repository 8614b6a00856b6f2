/** What `load` needs of a connection: `Database` of better-sqlite3, `DatabaseSync` of node:sqlite. */
export interface ExtensionHost {
  loadExtension(path: string): unknown;
  enableLoadExtension?(allow: boolean): void;
}

/** The extension's path as SQLite's load_extension wants it: without the .so. */
export function getLoadablePath(): string;

/** The path of the `replica` command. */
export function getCommandPath(): string;

/**
 * Loads the extension on a connection. It stays for the life of the process, and every connection opened afterwards
 * has its functions. `DatabaseSync` must be opened with `{ allowExtension: true }`; loading of further extensions on it
 * is disabled afterwards. Throws, with the missing settings by name, where a replica is required and not configured.
 */
export function load(db: ExtensionHost): void;
